"""`scripts/gpu-check` from end to end: on the CPU with the real server, and with a stand-in for servers that err."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from machine import BINARY, RUNTIME, WEIGHTS, needs  # noqa: E402

SCRIPT = ROOT / "scripts/gpu-check"
FAKE = Path(__file__).resolve().parent / "fake_sextant.py"
# So short that all phases take seconds.
BRIEF = ("--soak=1s", "--rollouts=4", "--measure=200ms", "--rounds=1", "--clients=4", "--generators=1")
PROBES = ("fp32 probes", "fp16 probes", "fp16 probes against fp32 on the CPU")
# What the stand-in does wrong, the phase that looks, and the checks that fail.
FAULTS = (
    ("anything", "devices", ("cuda:99 is refused with the cause", "cuda:99 is refused soon")),
    ("mute", "devices", ("cuda:99 is refused with the cause",)),
    ("vectors", "correctness", ("fp32 served against fp32 on the CPU", "fp16 served against fp32 on the CPU")),
    ("batch", "correctness", tuple(f"{one} served {against}" for one in ("fp32", "fp16")
                                   for against in ("against fp32 on the CPU", "alone against in a batch"))),
    ("probes", "correctness", PROBES),
    ("nan", "correctness", PROBES),
    ("gate", "correctness", ("fp32 passes the gate", "fp16 passes the gate")),
    ("nodes", "placement", ("nodes by /readyz",)),
    ("metrics", "placement", ("nodes by the metrics",)),
    ("device", "placement", ("device by /readyz",)),
    ("log", "placement", ("log of the start",)),
    ("failures", "soak", ("failed requests in 2 s",)),
    ("leak", "soak", ("device memory, last quarter / second",)),
    ("rollout", "soak", ("can be checked",)),
    ("status", "faults", ("128 MiB of device memory, big batches are answered",)),
    ("crash", "faults", ("too little device memory is told",)),
    ("lost", "faults", ("SIGTERM under load, lost requests",)),
)  # fmt: skip
# Prints what a peer prints: as slow as is said, and with the vectors that the stand-in makes, or others.
PEER = """#!{python}
import json, sys
sys.path.insert(0, {tests!r})
from fake_sextant import floats_of
rows = [json.loads(line) for line in open(sys.argv[3])]
texts = [row["text"] for row in rows][:: max(1, len(rows) // 8)][:8]
print("noise of a library")
print(json.dumps({answer}))
"""


class Run:
    """What the script did: exit code, rows by their names, and what it left behind."""

    def __init__(self, test: unittest.TestCase, sextant: Path, onnxruntime: Path, checkpoint: Path, *flags: str, **variables: str) -> None:
        self.folder = Path(temporary(test))
        self.figures = self.folder / "figures.json"
        (self.folder / "tmp").mkdir()
        (self.folder / "servers").mkdir()
        self.environment = os.environ | {"TMPDIR": str(self.folder / "tmp"), "FAKE_FOLDER": str(self.folder / "servers")} | variables
        self.command = [
            sys.executable, SCRIPT, "--sextant", sextant, "--onnxruntime", onnxruntime, "--checkpoint", checkpoint, "--json", self.figures, *flags,
        ]  # fmt: skip

    def finish(self) -> Run:
        done = subprocess.run(self.command, env=self.environment, capture_output=True, text=True, timeout=600)
        self.code, self.output, self.errors = done.returncode, done.stdout, done.stderr
        self.read()
        return self

    def read(self) -> None:
        self.document = json.loads(self.figures.read_text(encoding="utf-8"))
        self.rows = {row["check"]: row for row in self.document["rows"]}

    def failed(self) -> set[str]:
        return {name for name, row in self.rows.items() if row["verdict"] == "FAILED"}

    def verdicts(self, verdict: str) -> set[str]:
        return {name for name, row in self.rows.items() if row["verdict"] == verdict}

    def left(self) -> list[str]:
        """Temporary files, and servers that run on."""
        servers = [path.name.removeprefix("server-") for path in (self.folder / "servers").iterdir()]
        return [str(path) for path in (self.folder / "tmp").iterdir()] + [pid for pid in servers if Path("/proc", pid).exists()]


def temporary(test: unittest.TestCase) -> str:
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return folder.name


class OnTheProcessor(unittest.TestCase):
    @needs(BINARY, RUNTIME, WEIGHTS)
    def test_the_real_server_passes(self):
        run = Run(self, BINARY, RUNTIME, WEIGHTS, "--device=cpu", "--quick", "--allow-skips").finish()
        told = run.output + run.errors
        self.assertEqual((run.code, run.failed(), run.left()), (0, set(), []), told)
        # What needs a GPU, and no more; what is quick is not judged by speed and memory.
        self.assertEqual(
            run.verdicts("skipped"),
            {"beside: served / sentence-transformers in fp16", "soak: device memory", "faults: batches larger than the device's memory"},
        )
        self.assertEqual(
            run.verdicts("not judged"),
            {
                "throughput: served / bare sessions",
                "latency: served p50 at one client",
                "soak: resident memory, last quarter / second",
            },
        )
        self.assertEqual(
            {name.split(":")[0] for name in run.verdicts("passed")},
            {"devices", "correctness", "placement", "throughput", "soak", "faults"},
            told,
        )
        for name in ("throughput: served per machine", "throughput: bare sessions"):
            self.assertIn("tokens/s", run.rows[name]["figure"])
        self.assertGreater(run.rows["throughput: served per machine"]["values"]["tokens_per_second"], 100)
        self.assertGreater(run.rows["throughput: processors busy with the server"]["values"]["cores"], 0.1)
        self.assertEqual(set(run.rows["throughput: stages of a request of 32"]["values"]), {"tokenize", "queue", "infer", "finish"})
        self.assertEqual(len(run.rows["soak: rollouts"]["values"]["seconds"]), 4)
        # What the figures are of.
        self.assertRegex(run.document["versions"]["sextant"], r"^sextant \d")
        self.assertRegex(run.document["versions"]["onnxruntime"], r"^\d+\.\d+")
        self.assertRegex(run.document["date"], r"^\d{4}-\d\d-\d\dT")
        self.assertAlmostEqual(run.document["texts"]["median"], 27, delta=3)
        table = [line for line in run.output.splitlines() if line.startswith(tuple(run.rows))]
        self.assertEqual(len(table), len(run.rows))


class OnAStandIn(unittest.TestCase):
    """Rows that fail when they should, GPU or not: `cuda` is what the stand-in says of itself."""

    def setUp(self) -> None:
        self.root = Path(temporary(self))
        vocabulary = {f"w{chr(97 + at // 26)}{chr(97 + at % 26)}": at for at in range(600)}
        (self.root / "config.json").write_text('{"num_hidden_layers": 6}')
        (self.root / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        self.runtime = self.root / "libonnxruntime.so"
        self.runtime.touch()

    def peer(self, tokens_per_second: float, vectors: str = "[floats_of(text) for text in texts]") -> str:
        speed = f"'batch': 64, 'tokens_per_second': {tokens_per_second}"
        answer = f"{{'peer': 'sentence-transformers', 'versions': 'x 1', {speed}, 'vectors': {vectors}}}"
        path = self.root / "python"
        path.write_text(PEER.format(python=sys.executable, tests=str(FAKE.parent), answer=answer))
        path.chmod(0o755)
        return str(path)

    def prepared(self, *flags: str, fault: str = "") -> Run:
        flags = ("--device=cuda", *BRIEF, *flags)
        return Run(self, FAKE, self.runtime, self.root, *flags, FAKE_FAULT=fault)

    def test_one_that_does_all_as_it_should_passes_every_check(self):
        run = self.prepared("--python", self.peer(500)).finish()
        self.assertEqual((run.code, run.failed(), run.verdicts("skipped"), run.left()), (0, set(), set(), []), run.errors)
        self.assertEqual(
            set(run.document["phase_seconds"]), {"devices", "correctness", "placement", "throughput", "beside", "latency", "soak", "faults"}
        )
        self.assertEqual(run.document["versions"]["peer"], "x 1")
        self.assertIn(" passed\n", run.output)

    def test_each_fault_fails_its_check_and_no_other(self):
        """Several at a time: they wait more than they work."""
        with ThreadPoolExecutor(4) as pool:
            runs = pool.map(lambda case: self.prepared(f"--only={case[1]}", "--soak=2s", fault=case[0]).finish(), FAULTS)
            for (fault, phase, rows), run in zip(FAULTS, runs, strict=True):
                with self.subTest(fault, phase=phase):
                    self.assertEqual((run.code, run.failed(), run.left()), (1, {f"{phase}: {row}" for row in rows}, []), run.errors)

    def test_too_slow(self):
        run = self.prepared("--only=throughput,latency,beside", "--python", self.peer(500), fault="slow").finish()
        self.assertEqual(
            (run.code, run.failed()),
            (
                1,
                {
                    "throughput: served / bare sessions",
                    "beside: served / sentence-transformers in fp16",
                    "latency: served p50 at one client",
                },
            ),
            run.errors,
        )
        # Measured, and not judged.
        run = self.prepared("--quick", "--only=throughput,latency,devices", fault="slow").finish()
        self.assertEqual((run.code, run.failed()), (3, set()), run.errors)

    def test_a_peer_that_computes_something_else_or_cannot_run(self):
        run = self.prepared("--only=beside", "--python", self.peer(500, "[[1.0] + [0.0] * 15] * 8")).finish()
        self.assertEqual((run.code, run.failed()), (1, {"beside: vectors of sentence-transformers"}), run.errors)
        for python, reason in (("/no/such/python", "cannot be run"), (sys.executable, "torch")):
            run = self.prepared("--only=beside,devices", "--python", python).finish()
            self.assertEqual((run.code, run.verdicts("skipped")), (3, {"beside: served / sentence-transformers in fp16"}), run.errors)
            self.assertIn(reason, run.rows["beside: served / sentence-transformers in fp16"]["figure"])

    def test_where_no_batch_runs_out_of_memory_it_is_not_claimed(self):
        run = self.prepared("--only=faults", fault="roomy").finish()
        skipped = {"faults: 128 MiB of device memory, batches that ran out of it"}
        self.assertEqual((run.code, run.failed(), run.verdicts("skipped")), (3, set(), skipped), run.errors)

    def test_interrupted_it_ends_its_servers_and_tells_what_it_found(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                run = self.prepared("--only=devices,soak", "--soak=60s")
                process = subprocess.Popen(run.command, env=run.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                self.addCleanup(process.kill)
                end = time.monotonic() + 30
                # The soak's own server is the second.
                while len(list((run.folder / "servers").iterdir())) < 2:
                    self.assertIsNone(process.poll())
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.02)
                process.send_signal(number)
                output, _ = process.communicate(timeout=20)
                self.assertEqual((process.returncode, run.left()), (130, []))
                self.assertIn("interrupted: 3 passed", output)
                run.read()
                self.assertTrue(run.document["interrupted"])


if __name__ == "__main__":
    unittest.main()
