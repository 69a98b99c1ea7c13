"""A megabyte of requests must not take gigabytes: resident memory before, at its peak, and 5 seconds after the last answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import bodies
import gauges
from report import Figure, megabytes
from server import Place, Server

WARM_UP = 30
ROUTES = ("/embed_all", "/embed", "/v1/embeddings")
EACH, TEXTS = 60, 2048
# Bytes over the base.
MOST_PEAK, MOST_AFTER = 300_000_000, 100_000_000
BOUND = f"peak <= base + {megabytes(MOST_PEAK)}; after <= base + {megabytes(MOST_AFTER)}"
SETTLES = 5
# One answer of /tokenize takes seconds.
ENDS = 900
# What /tokenize takes at most, what a text may have at most, and how often.
TOKENIZED, LONGEST, ROUNDS = 256 << 10, 1_000_000, 10
PAGES, PIPELINED, LEFT = 200, 100, 8


def run(place: Place) -> Iterator[Figure]:
    for hold in (0, 5):
        taken = "answers taken at once" if hold == 0 else f"answers left for {hold} s"
        with place.serving() as server:
            plans = [equal_texts(route, hold) for route in ROUTES]
            yield attacked(server, f"{len(ROUTES) * EACH} requests of {TEXTS:,} equal texts, {taken}", plans)
    with place.serving() as server:
        plan = {"recipe": None, "path": "/metrics", "key": "operator", "connections": PAGES, "times": 1, "copies": PIPELINED}
        attack = f"{PAGES} connections with {PIPELINED} requests for /metrics each, no answer taken for {LEFT} s"
        yield attacked(server, attack, [plan | {"hold": 2 * LEFT, "give_up": LEFT}])
    with place.serving() as server:
        plans = [long_texts("/tokenize", "marks", amount) for amount in (TOKENIZED, LONGEST)]
        yield attacked(server, f"/tokenize of 8 x 256 KiB and 8 x 1 MB at once, {ROUNDS} times", plans)
    with place.serving() as server:
        plans = [long_texts("/embed", "characters", LONGEST)]
        yield attacked(server, f"/embed of 8 x 1 MB of Chinese characters at once, {ROUNDS} times", plans)


def long_texts(path: str, kind: str, amount: int) -> dict:
    recipe = {"kind": kind, "amount": amount}
    return {"recipe": recipe, "path": path, "key": "greedy", "connections": 8, "times": ROUNDS, "pause": 0.1}


def equal_texts(path: str, hold: float) -> dict:
    recipe = {"kind": "equal", "amount": TEXTS}
    return {"recipe": recipe, "path": path, "key": "greedy", "connections": EACH, "times": 1, "hold": hold}


def warmed_up(server: Server) -> None:
    for number in range(WARM_UP):
        server.ask("POST", "/v1/embeddings", bodies.body("/v1/embeddings", bodies.texts(4, 8, number)))


def attacked(server: Server, attack: str, plans: list[dict]) -> Figure:
    """Runs the plans at once to their end."""
    warmed_up(server)
    base = server.resident()
    server.forget_peak()
    with contextlib.ExitStack() as attackers, gauges.resident(server) as sampled:
        floods = [attackers.enter_context(gauges.flooding(server, **plan)) for plan in plans]
        for one in floods:
            server.until("all is answered", one.is_over, ENDS)
        done = gauges.told(gauges.summed([one.done() for one in floods]))
    peak = max(server.peak(), int(sampled.largest))
    time.sleep(SETTLES)
    after = server.resident()
    holds = peak - base <= MOST_PEAK and after - base <= MOST_AFTER
    return Figure(attack, megabytes(base), f"{megabytes(peak)} ({done})", megabytes(after), BOUND, holds)
