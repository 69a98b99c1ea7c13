"""What the server adds to a text that comes alone."""

from __future__ import annotations

import statistics

from .. import texts as text_sets
from ..context import FP16, Context
from ..report import Bound, information, measured
from ..server import Server

# Milliseconds.
ADDED = 0.5
# It has all processors, as the server's session for a text that comes alone.
ONE_SESSION = ("--sessions=1",)
# Distinct texts of the one length, so that nothing is kept for them.
COUNT = 64


def check(context: Context) -> None:
    options, report, server = context.options, context.report, context.alone(FP16)
    load, raw, served = context.load(server), [], []
    for _ in range(options.rounds):
        bare = context.bare("--latency", *ONE_SESSION)["latency_ms"]
        raw.append(bare["p50"])
        texts = of_exactly(context, server, bare["tokens"])
        [file] = load.split(texts, 1)
        p50 = load.run([file], 1, 1, options.measure).p50
        if p50 is None:
            raise ValueError("one client got no answer with a vector")
        served.append(p50)
    tokens = bare["tokens"]
    alone, p50 = statistics.median(raw), statistics.median(served)
    report.add(information(f"latency: bare session, {tokens} tokens, p50", f"{alone:.3f} ms", turns=raw, tokens=tokens))
    report.add(
        measured(
            "latency: served p50 at one client",
            p50,
            Bound(most=round(alone + ADDED, 3), unit=" ms"),
            f"{p50:.3f} ms (+{p50 - alone:.3f})",
            not options.quick,
            turns=served,
            added=p50 - alone,
        )
    )


def of_exactly(context: Context, server: Server, tokens: int) -> list[str]:
    """Texts that the server counts so many tokens in: those that there are, or made ones."""
    found = [text for text, ids in zip(context.texts, context.ids) if len(ids) == tokens][:COUNT]
    if len(found) < COUNT:
        made = text_sets.of_length(context.words, tokens, COUNT)
        found += [text for text, ids in zip(made, server.tokens(made)) if len(ids) == tokens]
    if not found:
        raise ValueError(f"no text of {tokens} tokens, the length of the bare session's row")
    return found
