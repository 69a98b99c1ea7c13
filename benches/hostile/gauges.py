"""What is measured beside an attack: resident memory, the longest `/livez`, and what honest clients get."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import attack
import bodies
import flood
import machine
import server as servers

HERE = pathlib.Path(__file__).resolve().parent
SAMPLE_SECONDS = 0.02
LIVEZ_SECONDS = 0.05
# Before others on this machine, so that a late turn of the measuring thread is not taken for a late answer.
PRIORITY = -5
HONEST_TEXTS = 400


class Flood(attack.Attack):
    """flood.py with a plan, against a server."""

    def __init__(self, server: servers.Server, plan: flood.Plan) -> None:
        self.plan = plan
        super().__init__(HERE / "flood.py", server.host, str(server.port))
        self.process.stdin.write(f"{plan.to_json()}\n")
        self.process.stdin.flush()

    def has_sent(self, count: int) -> bool:
        return self.done().get("sent", 0) >= count

    def is_over(self) -> bool:
        """Whether each connection has sent what it was to."""
        return self.done().get("finished", 0) >= self.plan.connections


def plan(server: servers.Server, key: str = "", **fields) -> flood.Plan:
    """A plan for requests with the key of that name."""
    return flood.Plan(key=server.keys.get(key, ""), **fields)


def summed(accounts: list[dict[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, accounts), Counter()))


def told(done: dict[str, int]) -> str:
    """Answers by status, of an account."""
    statuses = {name: count for name, count in done.items() if name not in ("sent", "bytes", "finished")}
    return ", ".join(f"{count} x {name}" for name, count in sorted(statuses.items()))


@contextlib.contextmanager
def flooding(server: servers.Server, **fields) -> Iterator[Flood]:
    """An attack that goes on for as long as the block does."""
    one = Flood(server, plan(server, **fields))
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


class Sampler:
    """Calls `sample` in a thread of its own until the block ends, and keeps the largest of what it gives."""

    def __init__(self, sample: Callable[[], float], seconds: float) -> None:
        self.largest, self.count, self.failed = 0.0, 0, 0
        self._sample, self._seconds, self._ended = sample, seconds, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        while not self._ended.wait(self._seconds):
            try:
                self.largest = max(self.largest, self._sample())
                self.count += 1
            except (OSError, IndexError):
                # No answer, or a process that is ending and has no memory.
                self.failed += 1

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()


def livez(server: servers.Server) -> Sampler:
    """The longest `/livez`, in seconds; one that does not say 200 counts as failed."""

    def sample() -> float:
        began = time.monotonic()
        if server.ask("GET", "/livez", key="", timeout=30).status != 200:
            raise OSError("not alive")
        return time.monotonic() - began

    return Sampler(sample, LIVEZ_SECONDS)


def resident(server: servers.Server) -> Sampler:
    """The most resident bytes, as far as samples see them."""
    return Sampler(server.resident, SAMPLE_SECONDS)


@dataclasses.dataclass(frozen=True)
class Honest:
    """What honest clients got."""

    p50: float
    requests: int
    per_second: float
    # Answers other than 200, and requests without one.
    refused: int

    def __str__(self) -> str:
        return f"{self.p50:.1f} ms"


def honest(server: servers.Server, seconds: float, concurrency: int = 1, key: str = "honest", rate: float | None = None) -> Honest:
    """Clients with short texts, one a request, that each send when their last request is answered, or all together at `rate` a second."""
    texts = server.place.folder / "honest.txt"
    if not texts.exists():
        texts.write_text("".join(f"{text}\n" for text in bodies.texts(HONEST_TEXTS, 6, 1)), encoding="utf-8")
    pace = ["--concurrency", concurrency] if rate is None else ["--rate", rate]
    line = ["bench", "--server", f"http://{server.address}", "--input", texts, *pace, "--duration", f"{seconds}s", "--warmup", "1s",
            "--timeout", "90s", "--json"]  # fmt: skip
    report = json.loads(server.place.command(*line, SEXTANT_API_KEY=server.keys.get(key, "")))
    statuses, latency = report["statuses"], report["latency_ms"]
    others = sum(count for status, count in statuses.items() if status != "200") + sum(report["failures"].values())
    return Honest(latency["p50"] if latency else float("inf"), statuses.get("200", 0), report["per_second"]["requests"], others)


def version(binary: pathlib.Path) -> str:
    """As the binary names itself."""
    return machine.run([binary, "--version"]).stdout.strip()
