"""Connections that mean harm, all at once, millions of frames, and ten thousand connections that say nothing: what honest clients get beside
them, and resident memory."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Iterator

import attack
import gauges
from report import Figure, megabytes
from server import Place, Server

TURNS, SECONDS = 3, 15
# Seconds that attacks go on before anything is measured, and memory is given back after them. A head has ten.
SETTLES = 12
LEAST_GOODPUT = 0.9
# Honest clients come at this share of the rate that they could be answered at: what is left is the attackers', who share the machine.
SHARE = 0.4
CLIENTS = 16
# Bodies that may be held, the answers that wait for deaf clients, and what the allocator keeps of both.
MOST_GROWTH = 512 << 20
# What must have been sent, by kind, and seconds for it.
FRAMES, ENDS = {"resets": 1_500_000, "continuations": 2_700_000}, 600
FRAME_FLOOD = pathlib.Path(__file__).resolve().parents[1] / "frames.py"
IDLE, IDLE_BEGINS, SLOWER = 10_000, 120, 3


def run(place: Place) -> Iterator[Figure]:
    # Without keys, so that the attacks get as far as they can.
    with place.serving(has_keys=False) as server:
        yield beside_all(server)
    with place.serving(has_keys=False) as server:
        yield from beside_many(server)
    with place.serving(has_keys=False) as server:
        yield beside_idle(server)


def beside_all(server: Server) -> Figure:
    rate = SHARE * gauges.honest(server, SECONDS, CLIENTS).per_second
    before, highest, shares, failed, deeds = server.resident(), 0, [], 0, {}
    for _ in range(TURNS):
        alone = gauges.honest(server, SECONDS, rate=rate)
        wire = attack.WireAttack(server.address)
        try:
            wire.begun()
            time.sleep(SETTLES)
            beside = gauges.honest(server, SECONDS, rate=rate)
            highest = max(highest, server.resident())
            deeds = wire.stop()
        finally:
            wire.process.kill()
        shares.append(beside.per_second / alone.per_second)
        failed += beside.refused
    time.sleep(SETTLES)
    goodput = statistics.median(shares)
    return Figure(
        "floods of HTTP/2, slow and endless heads and bodies, nests, packed bodies, deaf clients, names that are not there",
        f"{rate:.0f} requests a second, {megabytes(before)}",
        f"{goodput:.3f} of them {sorted(round(share, 3) for share in shares)}, {failed} failed, {megabytes(highest)} "
        f"({sum(deeds.values()):,} moves in the last turn)",
        megabytes(server.resident()),
        f"goodput >= {LEAST_GOODPUT}; none failed; memory <= before + {megabytes(MOST_GROWTH)}",
        goodput >= LEAST_GOODPUT and failed == 0 and highest - before <= MOST_GROWTH,
    )


def beside_many(server: Server) -> Iterator[Figure]:
    """So many frames that each stand for some work or memory of the server."""
    for kind, count in FRAMES.items():
        alone, base = gauges.honest(server, SECONDS), server.resident()
        flood = attack.Attack(FRAME_FLOOD, server.host, str(server.port), kind)
        try:
            with gauges.resident(server) as sampled, gauges.livez(server) as livez:
                beside = gauges.honest(server, SECONDS)
                server.until("all are sent", lambda: flood.done().get("frames", 0) >= count, ENDS)
            done = flood.stop()
        finally:
            flood.process.kill()
        time.sleep(SETTLES)
        yield Figure(
            f"{count:,} {kind} on HTTP/2 connections, as fast as the server takes them",
            f"p50 {alone}, {megabytes(base)}",
            f"p50 {beside}, {beside.refused} refused, /livez {livez.largest:.3f} s, {livez.failed} failed, {megabytes(int(sampled.largest))} "
            f"({done['frames']:,} sent over {done['connections']:,} connections)",
            f"p50 {gauges.honest(server, SECONDS)}, {megabytes(server.resident())}",
            f"/livez and honest requests answered; memory <= before + {megabytes(MOST_GROWTH)}",
            beside.refused == livez.failed == 0 and sampled.largest - base <= MOST_GROWTH,
        )


def beside_idle(server: Server) -> Figure:
    alone, base = gauges.honest(server, SECONDS), server.resident()
    # No request at all: each waits for the server to close it, and comes again.
    with gauges.flooding(server, recipe=None, path="/", copies=0, connections=IDLE) as flood:
        server.until("all have been there", lambda: flood.has_sent(IDLE), IDLE_BEGINS)
        with gauges.resident(server) as sampled:
            during = gauges.honest(server, SECONDS)
        done, still = flood.done(), server.page().total("sextant_connections")
    time.sleep(SETTLES)
    after = gauges.honest(server, SECONDS)
    return Figure(
        f"honest p50 beside {IDLE:,} connections without a request",
        f"{alone}, {megabytes(base)}",
        f"{during}, {during.refused} refused, {megabytes(int(sampled.largest))} "
        f"({done['sent']:,} came, {still:,.0f} open)",
        f"{after}, {megabytes(server.resident())}",
        f"p50 <= {SLOWER} x alone; none refused; memory <= before + {megabytes(MOST_GROWTH)}",
        during.p50 <= SLOWER * alone.p50 and during.refused == 0 and sampled.largest - base <= MOST_GROWTH,
    )
