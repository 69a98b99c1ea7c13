"""Texts of 1 MB, which cost much to tokenize: honest clients beside them, and what a quota lets through."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gauges
from report import Figure
from server import QUOTA, Place, Server

WORD, CONNECTIONS = 1_000_000, 8
SECONDS, BEGINS = 10, 120
SLOWER = 5
# A token for each 256 bytes is charged before a text is tokenized; a debt that is just paid lets one more through.
MOST_A_SECOND = QUOTA / (WORD / 256)
KINDS = {"word": "words of 1 MB", "characters": "1 MB of Chinese characters"}


def plan(kind: str) -> dict:
    return {"recipe": {"kind": kind, "amount": WORD}, "path": "/v1/embeddings", "connections": CONNECTIONS}


def run(place: Place) -> Iterator[Figure]:
    with place.serving() as server:
        for kind in KINDS:
            yield beside(server, kind)
        yield within_quota(server)


def beside(server: Server, kind: str) -> Figure:
    alone = gauges.honest(server, SECONDS)
    with gauges.flooding(server, key="greedy", **plan(kind)) as flood:
        server.until("all have sent", lambda: flood.has_sent(CONNECTIONS), BEGINS)
        during = gauges.honest(server, SECONDS)
        done = gauges.told(flood.done())
    time.sleep(1)
    after = gauges.honest(server, SECONDS)
    return Figure(
        f"honest p50 beside {CONNECTIONS} connections with {KINDS[kind]}, cut to their first tokens",
        str(alone),
        f"{during}, {during.refused} refused (greedy: {done})",
        str(after),
        f"p50 <= {SLOWER} x alone; none refused",
        during.p50 <= SLOWER * alone.p50 and during.refused == 0 and during.requests > 0,
    )


def within_quota(server: Server) -> Figure:
    with gauges.flooding(server, key="quota", pause=0.02, **plan("word")) as flood:
        server.until("one is refused", lambda: flood.done().get("429", 0) > 0, BEGINS)
        began, before = time.monotonic(), flood.done().get("200", 0)
        time.sleep(2 * SECONDS)
        passed = flood.done().get("200", 0) - before
        seconds, done = time.monotonic() - began, gauges.told(flood.done())
    # What is answered late was let in before.
    most = MOST_A_SECOND * seconds + CONNECTIONS
    return Figure(
        f"the same words from a key with {QUOTA:,} tokens a second",
        during=f"{passed / seconds:.1f} requests a second ({done})",
        bound=f"<= {MOST_A_SECOND:.1f} a second, and {CONNECTIONS} that were let in before",
        holds=0 < passed <= most,
    )
