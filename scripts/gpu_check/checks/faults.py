"""Batches larger than the device's memory, and a stop under load: every request is answered, and the server lives or ends as it should."""

from __future__ import annotations

import time
from collections import Counter
from http.client import HTTPException

from .. import texts as text_sets
from ..context import FP16, SIZED, Context
from ..load import Clients
from ..report import skipped, stated
from ..server import MODEL, Server, StartFailed

MIB = 2**20
# Beside the weights, tried in turn: the smallest with which a server starts has the least room for batches.
ROOM = (32 * MIB, 64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB)
# As large as the gate's own first batch can be.
BATCH_TOKENS = 65_536
# Longest texts of a request, and clients that send such.
BIG, CLIENTS = 64, 16
# A request without an answer by then hangs.
TIMEOUT = 60.0
# Under the stop: texts of a request, and how long the server serves on after the signal.
SMALL, DRAIN_DELAY = 8, 2.0


def check(context: Context) -> None:
    context.stop_servers()
    if context.options.has_gpu:
        big_batches(context)
    else:
        context.report.add(skipped("faults: batches larger than the device's memory", "no GPU"))
    stop_under_load(context)


def big_batches(context: Context) -> None:
    report = context.report
    server, memory = smallest(context)
    if server is None:
        return
    name = f"faults: {memory / MIB:.0f} MiB of device memory"
    words = context.words
    requests = [text_sets.of_length(words, text_sets.MOST + number, BIG) for number in range(CLIENTS)]
    with Clients(server, requests, CLIENTS, TIMEOUT) as clients:
        time.sleep(2 * context.options.measure)
        outcomes = clients.finish()
    answered = {"200", "503"}
    report.add(
        stated(
            f"{name}, big batches are answered",
            outcomes["200"] > 0 and not set(+outcomes) - answered,
            Clients.told(outcomes),
            "200 or 503",
            outcomes=dict(outcomes),
            slowest_seconds=clients.slowest,
        )
    )
    status, _ = server.ask("GET", "/livez")
    alone, _ = server.ask("POST", "/v1/embeddings", {"model": MODEL, "input": "one short text"})
    report.add(
        stated(
            f"{name}, the server lives on", server.lives() and status == alone == 200, f"/livez {status}, a short text {alone}", "200, 200"
        )
    )
    split = server.metrics().sum("sextant_out_of_memory_total", model=MODEL, version=str(FP16))
    if split is None:
        report.add(stated(f"{name}, batches that ran out of it", False, "there is no sextant_out_of_memory_total", "it is counted"))
    elif split == 0:
        report.add(skipped(f"{name}, batches that ran out of it", "no batch ran out of memory"))
    else:
        report.add(stated(f"{name}, batches that ran out of it", True, f"{split:.0f} were split", "at least 1", value=split))
    report.add(stated(f"{name}, the server stops", server.stop() == 0, "SIGTERM", "exit code 0"))


def smallest(context: Context) -> tuple[Server | None, int]:
    """A server with as little device memory as it starts with. With less it must end with a cause, not by a signal."""
    weights = sum(path.stat().st_size for path in (context.repositories[FP16] / MODEL / "versions" / str(FP16)).glob("model.onnx*"))
    causes = []
    for room in ROOM:
        memory = weights + room
        sizes = ("--sessions=1", "--lone-threads=0", f"--max-batch-tokens={BATCH_TOKENS}")
        try:
            server = context.start(context.repositories[FP16], context.options.device, "--device-memory", memory, sizes=sizes)
        except StartFailed as failure:
            causes.append((memory, failure))
            continue
        break
    else:
        server, memory = None, 0
    crashed = [failure for _, failure in causes if failure.code != 1 or not failure.cause]
    told = "; ".join(f"{memory / MIB:.0f} MiB: {failure.cause}" for memory, failure in causes)
    starts = f"starts with {memory / MIB:.0f} MiB" if server else f"starts with none of them; {told}"
    figure = str(crashed[0]) if crashed else starts
    context.report.add(
        stated(
            "faults: too little device memory is told", server is not None and not crashed, figure, "exit code 1 and a cause", refused=told
        )
    )
    return server, memory


def stop_under_load(context: Context) -> None:
    """What was sent before the server said that it stops is answered, and then it ends. Clients look away when /readyz says so, as a
    balancer does."""
    report = context.report
    server = context.start(context.repositories[FP16], context.options.device, sizes=SIZED, drain_delay=DRAIN_DELAY)
    requests = [context.texts[first : first + SMALL] for first in range(0, 50 * SMALL, SMALL)]
    with Clients(server, requests, CLIENTS if context.options.has_gpu else 4, TIMEOUT) as clients:
        time.sleep(context.options.measure)
        asked, in_flight = time.monotonic(), clients.in_flight
        server.process.terminate()
        while is_ready(server) and time.monotonic() < asked + DRAIN_DELAY:
            time.sleep(0.02)
        outcomes = clients.finish()
        code = server.end()
        seconds = time.monotonic() - asked
    lost = outcomes - Counter({"200": outcomes["200"]})
    report.add(
        stated(
            "faults: SIGTERM under load, lost requests",
            in_flight > 0 and outcomes["200"] >= in_flight and not lost,
            f"{Clients.told(outcomes)}; {in_flight} in flight at the signal",
            "only 200",
            outcomes=dict(outcomes),
            in_flight=in_flight,
        )
    )
    report.add(stated("faults: SIGTERM under load, the end", code == 0, f"exit code {code} after {seconds:.1f} s", "exit code 0"))


def is_ready(server: Server) -> bool:
    try:
        return server.ask("GET", "/readyz", timeout=5.0)[0] == 200
    except (OSError, HTTPException):
        return False
