"""Honest clients beside hostile ones, against the real server with real weights: none of their requests fails, the server's memory stays
bounded, and so does what a scrape of it gives. With SEXTANT_HOSTILE=full also: they get at least nine tenths of what they have alone."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from machine import BINARY, MODELS, SERVER, environment, free_port, needs, run

FULL = os.environ.get("SEXTANT_HOSTILE") == "full"
# Turns, and seconds of each.
TURNS, SECONDS = (3, 15) if FULL else (1, 8)
# Seconds that attacks go on before anything is measured, and memory is given back after them. A head has ten.
SETTLES = 12 if FULL else 1
# Seconds until every attack has begun, at most: on a busy machine they get little of the processor.
BEGINS = 300
LEAST_GOODPUT = 0.9
# Honest clients come at this share of the rate that they could be answered at: what is left is the attackers', who share the machine.
SHARE = 0.4
# Bodies that may be held, the answers that wait for deaf clients, and what the allocator keeps of both.
MOST_GROWTH = 512 << 20
# What must have been done.
DEEDS = ("slow head", "slow body", "nested", "bomb", "head", "bogus model", "bogus path", "bogus admin", "rapid reset", "many streams",
         "endless head", "control frames", "deaf: moves", "deaf by HTTP/2")  # fmt: skip
TEXTS = pathlib.Path(__file__).resolve()


class Attack:
    """hostile.py, from its start to its account."""

    def __init__(self, address: str) -> None:
        line = [sys.executable, TEXTS.with_name("hostile.py"), *address.split(":")]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def done(self) -> dict[str, int]:
        """How often it did what, so far."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def missing(self) -> list[str]:
        """What it has not done yet."""
        done = self.done()
        return [what for what in DEEDS if not any(name.startswith(what) for name in done)]

    def stop(self) -> dict[str, int]:
        done = self.done()
        self.process.communicate(timeout=60)
        return done


def few_files():
    """As most shells give them to a program: it may raise the limit itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, most), most))


@needs(*SERVER)
class Hostile(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = f"127.0.0.1:{free_port()}"
        self.log = pathlib.Path(folder.name) / "log"
        line = [BINARY, "serve", "--models", MODELS, "--listen", self.address, "--cache-dir", folder.name]
        with open(self.log, "w", encoding="utf-8") as log:
            self.server = subprocess.Popen(line, env=environment(), stdout=log, stderr=log, preexec_fn=few_files)
        self.addCleanup(self.end)
        end = time.monotonic() + 120
        while self.get("/readyz") is None:
            self.assertLess(time.monotonic(), end, self.log.read_text())
            self.assertIsNone(self.server.poll(), self.log.read_text())
            time.sleep(0.2)

    def end(self):
        self.server.kill()
        self.server.wait()

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def series(self):
        """How many lines a scrape has, but for those of statuses, of which a route has few."""
        return sum(not line.startswith("sextant_http_requests_total") for line in self.get("/metrics").splitlines())

    def memory(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def bench(self, seconds, rate=None):
        """What honest clients get, who come at `rate` a second, or as fast as they are answered."""
        pace = ["--concurrency", "16"] if rate is None else ["--rate", str(rate)]
        finished = run([BINARY, "bench", "--server", f"http://{self.address}", "--input", TEXTS, *pace, "--timeout", "5s", "--duration",
                        f"{seconds}s", "--warmup", "1s", "--json"])  # fmt: skip
        self.assertEqual(finished.returncode, 0, finished.stderr)
        report = json.loads(finished.stdout)
        self.assertEqual((list(report["statuses"]), report["failures"]), (["200"], {}), "an honest request failed")
        return report

    def test_honest_clients_are_served_beside_hostile_ones(self):
        ratios, lines, highest = [], [], 0
        rate = SHARE * self.bench(SECONDS)["per_second"]["requests"]
        before = self.memory()
        for turn in range(TURNS):
            alone = self.bench(SECONDS, rate)
            attack = Attack(self.address)
            self.addCleanup(attack.process.kill)
            end = time.monotonic() + BEGINS
            while missing := attack.missing():
                self.assertLess(time.monotonic(), end, missing)
                time.sleep(0.2)
            time.sleep(SETTLES)
            beside = self.bench(SECONDS, rate)
            lines.append(self.series())
            highest = max(highest, self.memory())
            done = attack.stop()
            ratios.append(beside["per_second"]["requests"] / alone["per_second"]["requests"])
            if FULL:
                print(f"turn {turn}: {self.told(alone)} alone, {self.told(beside)} beside {done}", flush=True)
        self.assertEqual(lines, lines[:1] * TURNS, "what a client sends has made series")
        time.sleep(SETTLES)
        after = self.memory()
        if FULL:
            megabytes = [round(bytes / 1e6) for bytes in (before, highest, after)]
            print(f"goodput {statistics.median(ratios):.3f} of {sorted(ratios)}; resident MB before, during, after: {megabytes}")
            self.assertGreaterEqual(statistics.median(ratios), LEAST_GOODPUT)
        self.assertLess(highest - before, MOST_GROWTH)
        self.assertLess(len(self.log.read_bytes()), 100_000, "what a client sends fills the log")

    def test_a_server_that_has_no_files_left_lets_honest_clients_in(self):
        before = resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE)
        self.assertEqual(before[0], before[1], "raised as far as it may be")
        most = len(list(pathlib.Path(f"/proc/{self.server.pid}/fd").iterdir())) + 20
        resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, (most, most))
        with contextlib.ExitStack() as held:
            host, port = self.address.split(":")
            for _ in range(200):
                held.enter_context(socket.create_connection((host, int(port))))
            self.assertEqual([self.get("/livez") is not None for _ in range(20)], [True] * 20)
        self.assertIn("cannot accept connections", self.log.read_text())

    def told(self, report):
        return f"{report['per_second']['requests']:.0f}/s, p99 {report['latency_ms']['p99']:.0f} ms"


if __name__ == "__main__":
    unittest.main()
