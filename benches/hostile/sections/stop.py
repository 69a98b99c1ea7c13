"""Signals at bad times: SIGTERM while a version is loaded from a disk that does not answer, and SIGHUP under load."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import signal
from collections.abc import Iterator

import gauges
import machine
from report import Figure
from server import MODEL, Place, Server

LOADS, ENDS = 60, 120
# Without a drain delay and without requests a stop has half a second for what blocks; the rest is for a busy machine.
MOST_SECONDS = 5
CONNECTIONS = 16


def run(place: Place) -> Iterator[Figure]:
    with place.serving("--drain-delay", "0s", "--sync-interval", "200ms") as server:
        yield blocked(server)
    with place.serving() as server:
        yield under_load(server)


@contextlib.contextmanager
def loads_blocked(cache: pathlib.Path) -> Iterator[None]:
    """Holds the lock that each load needs to bring a version into the cache, as a disk that does not answer would."""
    with next(cache.rglob(".room.lock")).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def blocked(server: Server) -> Figure:
    place, models = server.place, server.models
    with loads_blocked(place.folder / "cache"):
        line = [place.binary, "import", machine.WEIGHTS, "--models", models, "--name", MODEL, "--activate", "--reason", "hostile"]
        imported = machine.run(line)
        if imported.returncode != 0:
            raise RuntimeError(imported.stderr)
        server.until("the load has begun", lambda: any(place.folder.rglob(f".incoming-{MODEL}@2-*")), LOADS)
        seconds, code = server.signalled(signal.SIGTERM, ENDS)
    return Figure(
        "SIGTERM while a version is loaded from a disk that does not answer",
        during=f"ended after {seconds:.2f} s with {code}",
        bound=f"<= {MOST_SECONDS} s, exit code 0",
        holds=seconds <= MOST_SECONDS and code == 0,
    )


def under_load(server: Server) -> Figure:
    recipe = {"kind": "distinct", "amount": 4, "words": 6}
    plan = {"recipe": recipe, "path": "/v1/embeddings", "connections": CONNECTIONS, "pause": 0.05}
    with gauges.flooding(server, key="honest", **plan) as load:
        server.until("requests flow", lambda: load.done().get("200", 0) > 10 * CONNECTIONS, LOADS)
        seconds, code = server.signalled(signal.SIGHUP, ENDS)
        done = load.done()
    # Whoever comes after the listener is closed is refused by the system, and asks another server.
    failed = sum(count for what, count in done.items() if what not in ("200", "sent", "bytes", "ConnectionRefusedError"))
    return Figure(
        f"SIGHUP under {CONNECTIONS} clients",
        during=f"{failed} of {done['sent']:,} requests failed; ended after {seconds:.1f} s with {code}",
        bound="none failed, exit code 0",
        holds=failed == 0 and code == 0,
    )
