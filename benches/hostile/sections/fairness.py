"""Honest clients beside those who send much: the median of their answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import gauges
from report import Figure
from server import Place, Server

SECONDS = 12
# As prose: about eight tokens a text.
TEXTS, WORDS = 2048, 6
CONNECTIONS = 24
# Times the median alone, beside the runs of batches.
SLOWER = 3
BEGINS = 60
BATCH_SECONDS = 5


def run(place: Place) -> Iterator[Figure]:
    with place.serving() as server:
        alone = gauges.honest(server, SECONDS)
        for attack, connections, batches, more in attacks():
            yield beside(server, alone, attack, connections, batches, more)


def attacks() -> Iterator[tuple[str, int, int, dict]]:
    """What is sent, over how many connections, for how many batches an honest client may have to wait, and the rest of the plan."""
    bulk = {"headers": {"x-sextant-class": "bulk"}}
    one, many = f"one request of {TEXTS:,} texts at a time", f"{CONNECTIONS} connections with requests of {TEXTS:,} texts"
    yield f"{one}, bulk", 1, 1, bulk
    # As urgent as the honest requests: one batch of it is at work, and the honest rows share the next one with it.
    yield f"{one}, interactive", 1, 2, {}
    yield f"{many}, bulk", CONNECTIONS, 2, bulk
    yield f"{many}, interactive", CONNECTIONS, 2, {}
    yield f"{many}, interactive, that come again at once when they are refused", CONNECTIONS, 2, {"pause": 0.0}


def beside(server: Server, alone: gauges.Honest, attack: str, connections: int, batches: int, more: dict) -> Figure:
    recipe = {"kind": "distinct", "amount": TEXTS, "words": WORDS}
    plan = {"recipe": recipe, "path": "/v1/embeddings", "key": "greedy", "connections": connections} | more
    with gauges.flooding(server, **plan) as flood:
        server.until("all have sent", lambda: flood.has_sent(connections), BEGINS)
        server.until("rows wait", lambda: server.page().total("sextant_queue_tokens") > 0, BEGINS)
        runs = [batch_run(server)]
        during = gauges.honest(server, SECONDS)
        # Before and after, without honest rows in the batches.
        runs.append(batch_run(server))
        done = gauges.told(flood.stop())
    server.until("the queue is empty", lambda: server.page().total("sextant_queue_tokens") == 0, BEGINS)
    time.sleep(1)
    after = gauges.honest(server, 3)
    batch = 1000 * statistics.mean(runs)
    most = SLOWER * alone.p50 + batches * batch
    return Figure(
        f"honest p50 beside {attack}",
        str(alone),
        f"{during}, {during.refused} refused, a batch runs {batch:.1f} ms (greedy: {done})",
        str(after),
        f"p50 <= {SLOWER} x alone + {batches} x batch = {most:.1f} ms; none refused",
        during.p50 <= most and during.refused == 0 and during.requests > 0,
    )


def batch_run(server: Server) -> float:
    """Mean seconds of a batch's run while rows wait, so that every session is busy. The histogram of the stage `infer` does not say it: it
    counts requests when they are answered, and one of 2,048 texts has many batches and ends late."""
    began, before = time.monotonic(), server.page().total("sextant_batch_rows_count")
    time.sleep(BATCH_SECONDS)
    batches = server.page().total("sextant_batch_rows_count") - before
    return server.sessions() * (time.monotonic() - began) / max(1.0, batches)
