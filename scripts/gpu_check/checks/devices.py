"""A device that is not there is refused with a cause; the one that is asked for serves."""

from __future__ import annotations

from ..context import FP16, Context
from ..report import Bound, measured, stated
from ..server import MODEL

# More than any machine has.
ABSENT = "cuda:99"
# Seconds within which the cause must be told.
PROMPT = 10.0


def check(context: Context) -> None:
    report = context.report
    ended = context.binary.finish(
        "serve", "--models", context.repositories[FP16], "--listen=127.0.0.1:0", "--device", ABSENT, patience=PROMPT + 2
    )
    told = ended.cause.startswith("error: ") and "cuda" in ended.cause.lower()
    report.add(
        stated(
            f"devices: {ABSENT} is refused with the cause",
            ended.code == 1 and told,
            f"exit code {ended.code}: {ended.cause or 'nothing was said'}",
            "exit code 1 and a cause",
            code=ended.code,
        )
    )
    report.add(measured(f"devices: {ABSENT} is refused soon", ended.seconds, Bound(most=PROMPT, unit=" s"), f"{ended.seconds:.1f} s"))

    server = context.server(FP16)
    [vector] = server.vectors(["a text"])
    seconds = server.seconds_to_start
    report.add(
        stated(
            f"devices: {context.options.device} serves",
            len(vector) > 0,
            f"{MODEL}@{FP16} ready after {seconds:.1f} s",
            "it starts",
            seconds=seconds,
            log=server.log()[-20:],
        )
    )
