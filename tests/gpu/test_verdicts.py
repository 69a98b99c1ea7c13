"""What the figures of `scripts/gpu-check` come to: by the code of its verdicts alone, with made inputs."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import socket
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from gpu_check import options, report, texts, watch  # noqa: E402
from gpu_check.checks import correctness, placement  # noqa: E402
from gpu_check.load import Clients, Outcome  # noqa: E402
from gpu_check.report import Bound, Report, information, measured, skipped, stated  # noqa: E402
from gpu_check.server import Metrics  # noqa: E402


def run_of(sent=10, statuses=None, failures=None, tokens=100.0):
    return {
        "requests": {"sent": sent}, "statuses": {"200": sent} if statuses is None else statuses, "failures": failures or {},
        "per_second": {"tokens": tokens, "inputs": 2.0, "requests": 1.0}, "latency_ms": None, "generator": {"processor_share": None},
    }  # fmt: skip


class Verdicts(unittest.TestCase):
    def test_a_bound_is_kept_at_its_very_figure_and_by_no_number_that_is_none(self):
        for bound, kept, broken in (Bound(least=0.999), 0.999, 0.998999), (Bound(most=10), 10, 10.001):
            self.assertTrue(bound.holds(kept))
            self.assertFalse(bound.holds(broken))
            for none in (None, math.nan, math.inf, -math.inf):
                self.assertFalse(bound.holds(none), none)
        self.assertEqual(str(Bound(most=5.5, unit=" ms")), "<= 5.5 ms")

    def test_what_is_not_judged_neither_passes_nor_fails(self):
        for figure in (0.1, 0.9):
            self.assertEqual(measured("a", figure, Bound(least=0.85), judged=False).verdict, report.NOT_JUDGED)
        self.assertEqual(measured("a", 0.84, Bound(least=0.85)).verdict, report.FAILED)
        self.assertEqual(measured("a", None, Bound(least=0.85)).figure, "no number")

    def test_exit_codes(self):
        passed, failed, skip = stated("a", True, ""), stated("b", False, ""), skipped("c", "no GPU")
        unjudged = measured("d", 1.0, Bound(least=0), judged=False)
        for rows, code, allowed in (
            ([passed, information("e", "")], report.DONE, report.DONE),
            ([passed, skip], report.INCOMPLETE, report.DONE),
            ([passed, unjudged], report.INCOMPLETE, report.DONE),
            ([passed, skip, failed], report.FELL_SHORT, report.FELL_SHORT),
            ([skip], report.INCOMPLETE, report.INCOMPLETE),
            ([], report.INCOMPLETE, report.INCOMPLETE),
        ):
            with self.subTest([row.verdict for row in rows]):
                made = Report()
                made.rows = rows
                self.assertEqual((made.exit_code(False), made.exit_code(True)), (code, allowed))
        made = Report()
        made.rows, made.interrupted = [passed], True
        self.assertEqual(made.exit_code(True), report.INTERRUPTED)
        made.rows = [passed, failed]
        self.assertEqual(made.exit_code(True), report.FELL_SHORT)

    def test_the_file_has_every_figure_and_the_table_a_line_for_each(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "figures.json"
            made = Report(path)
            made.facts = {"date": "2026-01-01"}
            with contextlib.redirect_stderr(io.StringIO()) as told:
                made.add(measured("ratio", math.nan, Bound(least=0.85), turns=[1.5, math.inf]))
                made.add(stated("cause", False, "x" * 200, "a cause"))
            document = json.loads(path.read_text())
            self.assertEqual([row["verdict"] for row in document["rows"]], ["FAILED", "FAILED"])
            self.assertEqual(document["rows"][0]["values"], {"value": None, "turns": [1.5, None]})
            self.assertEqual(document["date"], "2026-01-01")
            self.assertEqual(list(Path(folder).iterdir()), [path])
            self.assertIn("x" * 200, told.getvalue())
        lines = made.table().splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["check", "ratio", "cause"])
        self.assertIn("x" * 80 + "...", lines[2])
        self.assertEqual(made.summary(), "0 passed, 2 FAILED")


class Cosines(unittest.TestCase):
    def test_the_least_is_found_and_what_is_no_number_is_less(self):
        ones, others = [(1.0, 0.0), (1.0, 1.0), (0.0, 2.0)], [(2.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
        figure, at = correctness.least(ones, others)
        self.assertAlmostEqual(figure, math.sqrt(0.5))
        self.assertEqual(at, 1)
        for wrong in ((0.0, 0.0), (math.nan, 1.0)):
            figure, at = correctness.least([*ones, (1.0, 0.0)], [*others, wrong])
            self.assertEqual((math.isnan(figure), at), (True, 3))
            self.assertFalse(Bound(least=-2).holds(figure))

    def test_vectors_of_another_width_or_number_are_no_comparison(self):
        for ones, others in (([(1.0, 0.0)], [(1.0,)]), ([(1.0,)], [(1.0,), (1.0,)])):
            with self.assertRaises(ValueError):
                correctness.least(ones, others)


class Placement(unittest.TestCase):
    def test_the_devices_have_the_names_that_the_server_gives_them(self):
        for asked, named in (("cpu", ["cpu"]), ("cuda", ["cuda:0"]), ("cuda:1", ["cuda:1"]), ("cuda:0,cuda:2", ["cuda:0", "cuda:2"])):
            self.assertEqual(parsed("--device", asked).devices, named)

    def test_each_layer_has_its_products(self):
        with tempfile.TemporaryDirectory() as folder:
            context = SimpleNamespace(options=SimpleNamespace(checkpoint=Path(folder)))
            for config, fewest in ('{"num_hidden_layers": 6}', 24), ("{}", 1):
                (Path(folder) / "config.json").write_text(config)
                self.assertEqual(placement.fewest_nodes(context), fewest)


class Requests(unittest.TestCase):
    def test_one_that_is_never_answered_is_none_that_is(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = SimpleNamespace(address=f"127.0.0.1:{silent.getsockname()[1]}")
            with Clients(server, [["a text"]], clients=2, timeout=0.2) as clients:
                time.sleep(0.3)
                outcomes = clients.finish()
        self.assertEqual(set(+outcomes), {"no answer in time"})
        self.assertGreaterEqual(outcomes.total(), 2)


class Figures(unittest.TestCase):
    def test_every_request_without_vectors_counts(self):
        outcome = Outcome([run_of(), run_of(statuses={"200": 7, "503": 2}, failures={"timeout": 1})])
        self.assertEqual((outcome.sent, outcome.not_served, outcome.causes), (20, 3, "2 x 503, 1 x timeout"))
        self.assertEqual(outcome.tokens_per_second, 200.0)
        # Abandoned ones have no status at all.
        self.assertEqual(Outcome([run_of(statuses={"200": 9})]).not_served, 1)
        self.assertEqual(Outcome([run_of(statuses={})]).not_served, 10)
        self.assertEqual(Clients.told(Counter({"503": 2, "200": 1})), "1 x 200, 2 x 503")

    def test_peaks_of_quarters(self):
        def sample(at, device):
            return watch.Sample(float(at), 0.0, at, device, None)

        samples = [sample(at, 10.0 * at) for at in range(8)] + [sample(8, 1e9)]
        self.assertEqual(watch.quarters(samples, 0.0, 8.0, "resident"), [1, 3, 5, 7])
        self.assertEqual(watch.quarters(samples, 0.0, 8.0, "device"), [10.0, 30.0, 50.0, 70.0])
        self.assertIsNone(watch.quarters(samples[:6], 0.0, 8.0, "resident"))
        self.assertIsNone(watch.quarters([sample(at, None) for at in range(8)], 0.0, 8.0, "device"))
        self.assertEqual(watch.quarters([*samples[:3], sample(3, None), *samples[3:]], 0.0, 8.0, "device"), [10.0, 30.0, 50.0, 70.0])

    def test_processors_are_those_of_the_time_asked_for(self):
        watched = watch.Watch(None, [])
        watched.samples = [
            watch.Sample(at, spent, 0, None, share) for at, spent, share in ((0, 0, 0.1), (1, 9, 0.5), (3, 13, 0.7), (4, 99, 0))
        ]
        self.assertEqual(watched.cores(1, 3), 2.0)
        self.assertAlmostEqual(watched.utilization(1, 3), 0.6)
        self.assertIsNone(watched.cores(3.5, 5))

    def test_series_are_found_by_their_labels(self):
        metrics = Metrics('# HELP a b\na{x="1",y="q\\"},{"} 2\na{x="2"} 3e0\nb 4\n')
        self.assertEqual(metrics.sum("a"), 5.0)
        self.assertEqual(metrics.find("a", x="1"), [({"x": "1", "y": 'q\\"},{'}, 2.0)])
        self.assertEqual(metrics.sum("b"), 4.0)
        self.assertIsNone(metrics.sum("a", x="3"))


class Texts(unittest.TestCase):
    VOCABULARY = [f"w{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(600)]

    def test_they_are_the_same_every_time_distinct_and_of_mixed_lengths(self):
        made = texts.mixed(self.VOCABULARY, 4000)
        self.assertEqual(made, texts.mixed(self.VOCABULARY, 4000))
        self.assertEqual(len(set(made)), 4000)
        found = texts.lengths([[0] * (len(text.split()) + texts.SPECIAL) for text in made])
        self.assertAlmostEqual(found["median"], texts.MEDIAN, delta=2)
        self.assertAlmostEqual(found["p95"], texts.P95, delta=12)
        self.assertLessEqual(found["max"], texts.MOST)

    def test_words_of_every_kind_of_vocabulary(self):
        pieces = ["[CLS]", "##ing", "UPPER", "x", *self.VOCABULARY]
        kinds = {
            "WordPiece": {piece: at for at, piece in enumerate(pieces)},
            "BPE": {f"\u0120{piece}": at for at, piece in enumerate(pieces)} | {"inside": 9999},
            "Unigram": [[f"\u2581{piece}", -1.0] for piece in pieces] + [["inside", -1.0]],
        }
        with tempfile.TemporaryDirectory() as folder:
            for kind, vocabulary in kinds.items():
                (Path(folder) / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
                self.assertEqual(set(texts.words(Path(folder))), set(self.VOCABULARY), kind)
            (Path(folder) / "tokenizer.json").write_text('{"model": {"vocab": {"few": 1}}}')
            with self.assertRaises(ValueError):
                texts.words(Path(folder))

    def test_a_file_is_read_as_it_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path, odd = Path(folder) / "texts", ["two\nlines", '{"text": 1}', "plain", "é"]
            self.assertEqual(texts.read(texts.write(path, odd)), odd)
            path.write_text("one\n\ntwo\none\n")
            self.assertEqual(texts.read(path), ["one", "two"])
            path.write_text(" \n")
            with self.assertRaises(ValueError):
                texts.read(path)


def parsed(*arguments):
    """Options over files that are there."""
    this, folder = Path(sys.executable), tempfile.mkdtemp()
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    (Path(folder) / "config.json").touch()
    return options.parse("", ["--sextant", str(this), "--onnxruntime", str(this), "--checkpoint", folder, *arguments])


class Usage(unittest.TestCase):
    def test_what_is_asked_for(self):
        given = parsed("--device", "cuda:1", "--only", "soak,devices", "--soak", "10m", "--rollouts", "50")
        self.assertEqual((given.only, given.soak, given.rollouts, given.gpus), (("devices", "soak"), 600.0, 50, [1]))
        self.assertEqual(given.provider, "CUDAExecutionProvider")
        self.assertEqual((parsed().device, parsed("--device", "cpu").gpus, parsed("--device", "cuda:0,cuda:1").gpus), ("cuda", [], [0, 1]))

    def test_mistakes_end_with_code_2_and_are_named(self):
        for arguments, named in (
            (("--device", "auto"), "auto"), (("--device", "cuda:0,cpu"), "cuda:0,cpu"),
            (("--device", "tensorrt"), "tensorrt"), (("--only", "speed"), "speed"),
            (("--soak", "ten"), "ten"), (("--rollouts", "3"), "--rollouts"), (("--texts", "no/such/file"), "--texts"),
            (("--json", "no/such/folder/file"), "--json"), (("--sextant", "no/such/binary"), "--sextant"), (("--rounds", "0"), "--rounds"),
        ):  # fmt: skip
            with self.subTest(arguments), contextlib.redirect_stderr(io.StringIO()) as told:
                with self.assertRaises(SystemExit) as ended:
                    parsed(*arguments)
                self.assertEqual(ended.exception.code, report.USAGE)
                self.assertIn(named, told.getvalue().splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
