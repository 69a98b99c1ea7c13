"""A full queue, and equal texts beside it: tokens a second, and the longest `/livez`."""

from __future__ import annotations

import contextlib
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
RATE, SECONDS, FILLS = 10, 10, 120
LEAST_THROUGHPUT, MOST_LIVEZ = 0.9, 0.2
BOUND = f"tokens/s >= {LEAST_THROUGHPUT} of before; /livez <= {MOST_LIVEZ} s"


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
    before, livez_before = throughput(server)
    recipe = {"kind": "equal", "amount": TEXTS, "encoding_format": encoding}
    plan = {"recipe": recipe, "path": "/v1/embeddings", "key": "honest", "connections": 200, "rate": RATE}
    with gauges.flooding(server, **plan) as duplicates:
        server.until("duplicates are sent", lambda: duplicates.has_sent(RATE), FILLS)
        rows = server.page().total("sextant_queue_items")
        during, livez_during = throughput(server)
        done = gauges.told(duplicates.stop())
    after, _ = throughput(server)
    return Figure(
        f"queue kept full by {len(FILLERS)} keys; beside it {RATE} requests a second of {TEXTS:,} equal texts, answers in {encoding}",
        f"{before:.0f} tokens/s, /livez {livez_before:.3f} s",
        f"{during:.0f} tokens/s, {during / before:.2f} of before, /livez {livez_during:.3f} s ({rows:.0f} rows waiting; {done})",
        f"{after:.0f} tokens/s",
        BOUND,
        during >= LEAST_THROUGHPUT * before and max(livez_before, livez_during) <= MOST_LIVEZ,
    )
