"""A full queue, and equal texts beside it: tokens a second, and the longest `/livez`."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator

import gauges
from report import Figure
from server import Place, Server

# Short texts, so that many rows wait.
FILLERS, CONNECTIONS, TEXTS, WORDS = ("greedy", "first", "second", "third"), 8, 2048, 3
BASE64 = {"encoding_format": "base64"}
# Of the queue's tokens. What is missing is what the account leaves to a caller that holds nothing.
FULL = 0.7
QUEUE_TOKENS = 262_144
RATE, SECONDS, FILLS, ROUNDS = 10, 10, 120, 3
LEAST_THROUGHPUT, MOST_LIVEZ = 0.9, 0.2
BOUND = f"tokens/s >= {LEAST_THROUGHPUT} of before and after, median of {ROUNDS}; /livez <= {MOST_LIVEZ} s"


def run(place: Place) -> Iterator[Figure]:
    for encoding in ("base64", "float"):
        with place.serving() as server, contextlib.ExitStack() as fillers:
            for number, key in enumerate(FILLERS):
                # Other texts than the other keys', a seed for each connection; in base64, or the room for answers is full before the queue.
                recipe = {"kind": "distinct", "amount": TEXTS, "words": WORDS, "first": 100 + CONNECTIONS * number} | BASE64
                plan = {"recipe": recipe, "path": "/v1/embeddings", "key": key, "connections": CONNECTIONS}
                fillers.enter_context(gauges.flooding(server, **plan))
            server.until("the queue is full", lambda: waiting(server) >= FULL * QUEUE_TOKENS, FILLS)
            yield beside_duplicates(server, encoding)


def waiting(server: Server) -> float:
    return server.page().total("sextant_queue_tokens")


def throughput(server: Server) -> tuple[float, float]:
    """Real tokens a second, and the longest `/livez` in seconds; infinite if one failed."""
    with gauges.livez(server) as livez:
        began, before = time.monotonic(), server.page().total("sextant_tokens_total", kind="real")
        time.sleep(SECONDS)
        tokens = server.page().total("sextant_tokens_total", kind="real") - before
        seconds = time.monotonic() - began
    return tokens / seconds, float("inf") if livez.failed else livez.largest


def beside_duplicates(server: Server, encoding: str) -> Figure:
    """In turns, so that a machine that gets slower or faster meanwhile does so for both."""
    recipe = {"kind": "equal", "amount": TEXTS, "encoding_format": encoding}
    plan = {"recipe": recipe, "path": "/v1/embeddings", "key": "honest", "connections": 200, "rate": RATE}
    quiet, beside, done, rows = [throughput(server)], [], [], []
    for _ in range(ROUNDS):
        with gauges.flooding(server, **plan) as duplicates:
            server.until("duplicates are sent", lambda: duplicates.has_sent(RATE), FILLS)
            rows.append(server.page().total("sextant_queue_items"))
            beside.append(throughput(server))
            done.append(duplicates.stop())
        quiet.append(throughput(server))
    # Each round against what was before and after it.
    around = [(before + after) / 2 for (before, _), (after, _) in itertools.pairwise(quiet)]
    share = statistics.median(during / alone for (during, _), alone in zip(beside, around, strict=True))
    (before, livez_before), *_, (after, _) = quiet
    during = statistics.median(tokens for tokens, _ in beside)
    livez_during = max(livez for _, livez in beside)
    told = gauges.told(gauges.summed(done))
    return Figure(
        f"queue kept full by {len(FILLERS)} keys; beside it {RATE} requests a second of {TEXTS:,} equal texts, answers in {encoding}",
        f"{before:.0f} tokens/s, /livez {livez_before:.3f} s",
        f"{during:.0f} tokens/s, {share:.2f} of those around it, /livez {livez_during:.3f} s ({min(rows):.0f} rows waiting; {told})",
        f"{after:.0f} tokens/s",
        BOUND,
        share >= LEAST_THROUGHPUT and max(livez_during, *(livez for _, livez in quiet)) <= MOST_LIVEZ,
    )
