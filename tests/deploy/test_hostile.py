"""Honest clients beside hostile ones, against the real server with real weights: none of their requests fails, the server's memory stays
bounded, and so does what a scrape of it gives. `make hostile` measures also how much they get."""

from __future__ import annotations

import contextlib
import json
import pathlib
import resource
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

from attack import WireAttack
from machine import BINARY, MODELS, SERVER, environment, free_port, needs, run

SECONDS = 8
# Seconds that attacks go on before anything is measured.
SETTLES = 1
# Honest clients come at this share of the rate that they could be answered at: what is left is the attackers', who share the machine.
SHARE = 0.4
# Bodies that may be held, the answers that wait for deaf clients, and what the allocator keeps of both.
MOST_GROWTH = 512 << 20
TEXTS = pathlib.Path(__file__).resolve()


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
        rate = SHARE * self.bench(SECONDS)["per_second"]["requests"]
        before = self.memory()
        attack = WireAttack(self.address)
        self.addCleanup(attack.process.kill)
        attack.begun()
        time.sleep(SETTLES)
        lines = self.series()
        self.bench(SECONDS, rate)
        highest = self.memory()
        self.assertEqual(self.series(), lines, "what a client sends has made series")
        attack.stop()
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


if __name__ == "__main__":
    unittest.main()
