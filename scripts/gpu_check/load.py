"""Load on a server: `sextant bench` for speeds, and clients of our own for what it does not do."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import texts as text_sets
from .binary import Binary
from .server import MODEL, Server

# Before a measurement.
WARMUP = 2.0
# Beyond what a run of `sextant bench` is meant to take: its start, and answers that come late.
SLACK = 90.0


@dataclass(frozen=True)
class Outcome:
    """What one or more runs of `sextant bench` at the same time found."""

    runs: list[dict]

    @property
    def tokens_per_second(self) -> float:
        """Real ones, by the server's count. Runs that begin and end together add up."""
        return sum(run["per_second"]["tokens"] or 0.0 for run in self.runs)

    @property
    def inputs_per_second(self) -> float:
        return sum(run["per_second"]["inputs"] for run in self.runs)

    @property
    def requests_per_second(self) -> float:
        return sum(run["per_second"]["requests"] for run in self.runs)

    @property
    def sent(self) -> int:
        return sum(run["requests"]["sent"] for run in self.runs)

    @property
    def not_served(self) -> int:
        """Requests without vectors: no answer, or another status than 200."""
        return sum(run["requests"]["sent"] - run["statuses"].get("200", 0) for run in self.runs)

    @property
    def causes(self) -> str:
        """What became of those, as `3 x 503, 1 x timeout`."""
        counts: Counter = Counter()
        for run in self.runs:
            counts.update({what: count for what, count in (run["statuses"] | run["failures"]).items() if what != "200"})
        return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))

    @property
    def p50(self) -> float | None:
        """Milliseconds, of a single run."""
        return (self.runs[0]["latency_ms"] or {}).get("p50")

    @property
    def generator_share(self) -> float | None:
        """Of one core, by the busiest run: near 1 the load is what limits."""
        shares = [run["generator"]["processor_share"] for run in self.runs if run["generator"]["processor_share"] is not None]
        return max(shares, default=None)


class Load:
    """Runs of `sextant bench` on a server, each with texts of its own."""

    def __init__(self, binary: Binary, server: Server, folder: Path) -> None:
        self.binary, self.server, self.folder = binary, server, folder

    def split(self, texts: list[str], generators: int) -> list[Path]:
        """A file for each generator: a text in flight twice would be computed once."""
        self.folder.mkdir(exist_ok=True)
        return [text_sets.write(self.folder / f"load-{part}-of-{generators}.jsonl", texts[part::generators]) for part in range(generators)]

    def start(self, texts: Path, clients: int, inputs: int, seconds: float, warmup: float = WARMUP) -> subprocess.Popen:
        return self.binary.start(
            "bench",
            "--server",
            self.server.url,
            "--input",
            texts,
            "--model",
            MODEL,
            "--concurrency",
            clients,
            "--inputs-per-request",
            inputs,
            "--encoding",
            "base64",
            "--duration",
            f"{round(seconds * 1000)}ms",
            "--warmup",
            f"{round(warmup * 1000)}ms",
            "--timeout",
            "60s",
            "--json",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def collect(self, processes: Iterable[subprocess.Popen], seconds: float) -> Outcome:
        finished = [self.binary.collect(process, seconds + SLACK) for process in list(processes)]
        return Outcome([self.binary.json_of(one, "bench") for one in finished])

    def run(self, files: list[Path], clients: int, inputs: int, seconds: float, warmup: float = WARMUP) -> Outcome:
        """So many clients over all the generators."""
        each = max(1, clients // len(files))
        processes = [self.start(texts, each, inputs, seconds, warmup) for texts in files]
        return self.collect(processes, seconds + warmup)


class Clients:
    """Threads that send requests until they are told to stop, and count every one. Unlike `sextant bench` they can stop sending and
    wait for what is in flight, and take a 503 for an answer."""

    def __init__(self, server: Server, requests: list[list[str]], clients: int, timeout: float) -> None:
        self.address, self.timeout = server.address, timeout
        self.bodies = [json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}) for texts in requests]
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.in_flight = 0
        # Answers by status, requests without one by what happened.
        self.outcomes: Counter = Counter()
        self.slowest = 0.0
        self.threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Clients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()

    def work(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=self.timeout)
        while not self.stopping.is_set():
            started = time.monotonic()
            with self.lock:
                self.in_flight += 1
            outcome = self.send(connection, self.bodies[number % len(self.bodies)])
            number += len(self.threads)
            with self.lock:
                self.in_flight -= 1
                self.outcomes[outcome] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
        connection.close()

    def send(self, connection: http.client.HTTPConnection, body: str) -> str:
        try:
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__

    def finish(self) -> Counter:
        """Sends no more, and waits for what is in flight. Whoever is still waiting then hangs."""
        self.stopping.set()
        end = time.monotonic() + self.timeout + 5
        for thread in self.threads:
            thread.join(max(end - time.monotonic(), 0))
        with self.lock:
            hanging = sum(thread.is_alive() for thread in self.threads)
            return self.outcomes + Counter({"hangs": hanging})

    @staticmethod
    def told(outcomes: Counter) -> str:
        return ", ".join(f"{count} x {what}" for what, count in sorted(outcomes.items())) or "no request"
