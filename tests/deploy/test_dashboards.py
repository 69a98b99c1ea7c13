"""Dashboards: their JSON is what grafana/make.py makes and whole, and a real Prometheus answers every query of theirs.

The queries run on a page with every metric of the server, and where a server was built on a real one, too. Needs PyYAML, and the
package `prometheus`. SEXTANT_BINARY and SEXTANT_HOME name another binary and another folder with `models` and `runtime`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import metrics  # noqa: E402
import yaml  # noqa: E402
from exporter import Exporter  # noqa: E402
from prometheus import Prometheus, free_port  # noqa: E402

ROOT = metrics.ROOT
BOARDS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "helm/sextant/files/dashboards").glob("*.json"))}
RECORDED = {
    rule["record"]
    for path in metrics.RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
HOME = Path(os.environ.get("SEXTANT_HOME", ROOT / ".sextant"))
BINARY = Path(os.environ.get("SEXTANT_BINARY", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/sextant"))
EVERYTHING = {"namespace": ".*", "model": ".*", "version": ".*"}


def panels(board: dict) -> list[dict]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str, bool]]:
    """Name, PromQL and whether it is of one moment, of every panel and annotation."""
    found = []
    for file, board in BOARDS.items():
        for panel in panels(board):
            found += [(f"{file}: {panel['title']} {t['refId']}", t["expr"], t["instant"]) for t in panel["targets"]]
        found += [(f"{file}: annotation {a['name']}", a["expr"], False) for a in board["annotations"]["list"]]
    return found


def substituted(query: str, variables: dict[str, str]) -> str:
    query = query.replace("$__rate_interval", "5s")
    for name, value in variables.items():
        query = re.sub(rf"\${name}\b", lambda _, value=value: value, query)
    assert "$" not in query, query
    return query


class Structure(unittest.TestCase):
    def test_the_json_is_what_make_makes(self) -> None:
        done = subprocess.run([sys.executable, ROOT / "grafana/make.py", "--check"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_ids_are_unique_and_panels_do_not_overlap(self) -> None:
        for file, board in BOARDS.items():
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), file)
            taken: dict[tuple[int, int], str] = {}
            for panel in board["panels"]:
                grid = panel["gridPos"]
                self.assertLessEqual(grid["x"] + grid["w"], 24, panel["title"])
                for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
                    self.assertNotIn(cell, taken, f"{panel['title']} lies on {taken.get(cell)}")
                    taken[cell] = panel["title"]
        self.assertEqual(len({board["uid"] for board in BOARDS.values()}), len(BOARDS))

    def test_each_panel_says_what_it_shows_and_asks_the_chosen_source(self) -> None:
        for file, board in BOARDS.items():
            self.assertGreaterEqual(board["schemaVersion"], 39)
            titles = [panel["title"] for panel in panels(board)]
            self.assertEqual(len(titles), len(set(titles)), f"{file}: a title twice")
            for panel in panels(board):
                with self.subTest(file, title=panel["title"]):
                    self.assertGreater(len(panel["description"]), 40)
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
                    names = [target["refId"] for target in panel["targets"]]
                    self.assertEqual(len(names), len(set(names)))
                    for part in (panel, *panel["targets"]):
                        self.assertEqual(part["datasource"], {"type": "prometheus", "uid": "${datasource}"})

    def test_variables_are_defined_and_used(self) -> None:
        for file, board in BOARDS.items():
            names = [variable["name"] for variable in board["templating"]["list"]]
            self.assertEqual(names, ["datasource", "namespace", "model", "version"], file)
            used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) - {"__rate_interval"}
            self.assertEqual(used, set(names), file)

    def test_series_and_labels_are_the_servers_or_a_rules(self) -> None:
        known = metrics.labels_of_series()
        labels_there_are = set().union(*known.values())
        for name, query, _ in queries():
            with self.subTest(name):
                for series, labels in metrics.used(query).items():
                    self.assertTrue(series in known or series in RECORDED, f"no such series: {series}")
                    if series in known:
                        self.assertLessEqual(labels, known[series], f"labels of {series}")
                self.assertLessEqual(metrics.grouped(query), labels_there_are)

    def test_no_metric_of_the_server_is_shown_nowhere(self) -> None:
        shown = {series for _, query, _ in queries() for series in metrics.used(query)}
        rules = "".join(path.read_text() for path in metrics.RULES)
        hidden = {metric.name for metric in metrics.defined().values() if metric.name.startswith("sextant_")
                  and not shown & set(metric.series()) and metric.name not in rules}  # fmt: skip
        self.assertEqual(hidden, set())


def results(prometheus: Prometheus, variables: dict[str, str], seconds: float) -> dict[str, list]:
    """What each query finds. One that Prometheus refuses, or that gives no number, is an error."""
    found, now = {}, time.time()
    for name, query, instant in queries():
        query = substituted(query, variables)
        try:
            series = prometheus.query(query) if instant else prometheus.query_range(query, now - seconds, now, 1)
        except ValueError as error:
            raise AssertionError(f"{name}: {error}\n{query}") from None
        values = [float(value) for one in series for _, value in ([one["value"]] if instant else one["values"])]
        assert not any(math.isnan(value) for value in values), f"{name} gives NaN: {query}"
        found[name] = series
    return found


@unittest.skipUnless(shutil.which("prometheus"), "no Prometheus to test with: install the package `prometheus`")
class Queries(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.exporters = [Exporter(instance) for instance in range(3)]
        cls.prometheus = Prometheus([exporter.address for exporter in cls.exporters])
        time.sleep(10)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.prometheus.close()
        for exporter in cls.exporters:
            exporter.close()

    def test_each_finds_data_where_there_is_some(self) -> None:
        everything = results(self.prometheus, EVERYTHING, 4)
        self.assertEqual([name for name, series in everything.items() if not series], [])
        chosen = {"namespace": "prod|test", "model": "minilm", "version": "1|2"}
        # Statistics of a fleet that are recorded without a namespace are found under All only.
        bare = {series for series in RECORDED if series.startswith("sextant:drift_")
                and any("namespace" not in one["metric"] for one in self.prometheus.query(series))}  # fmt: skip
        without = {name for name, query, _ in queries() if bare & set(metrics.used(query))}
        empty = {name for name, series in results(self.prometheus, chosen, 4).items() if not series}
        self.assertEqual(empty - without, set())

    def test_variables_find_their_values(self) -> None:
        for variable in BOARDS["drift.json"]["templating"]["list"][1:]:
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            match = {"match[]": substituted(series, EVERYTHING)}
            self.assertTrue(self.prometheus.get(f"label/{label}/values", **match), variable["name"])

    def test_rules_are_evaluated_without_errors(self) -> None:
        groups = self.prometheus.get("rules")["groups"]
        bad = [(rule["name"], rule.get("lastError")) for group in groups for rule in group["rules"] if rule["health"] != "ok"]
        self.assertEqual(bad, [])
        for series in RECORDED:
            for one in self.prometheus.query(series):
                self.assertFalse(math.isnan(float(one["value"][1])), one["metric"])


WHOLE = BINARY.is_file() and (HOME / "models").is_dir() and shutil.which("prometheus")


@unittest.skipUnless(WHOLE, f"no server to test with: {BINARY} and {HOME}/models, or no Prometheus")
class RealServer(unittest.TestCase):
    def test_its_page_is_as_the_source_says_and_every_query_is_answered(self) -> None:
        with tempfile.TemporaryDirectory(prefix="sextant-dashboards-") as folder:
            models = shutil.copytree(HOME / "models", Path(folder) / "models")
            address = f"127.0.0.1:{free_port()}"
            library = next((HOME / "runtime").glob("libonnxruntime.so*"))
            command = [BINARY, "serve", "--models", models, "--listen", address, "--onnxruntime", library, "--sessions", "1",
                       "--lone-threads", "0", "--max-batch-tokens", "1024", "--log", "error"]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
                try:
                    self.ask(server, f"http://{address}")
                finally:
                    server.send_signal(signal.SIGKILL)

    def ask(self, server: subprocess.Popen, url: str) -> None:
        def get(path: str, body: dict | None = None) -> str:
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()

        for _ in range(600):
            try:
                get("/readyz")
                break
            except OSError:
                self.assertIsNone(server.poll(), "the server ended")
                time.sleep(0.1)
        model = json.loads(get("/v1/models"))["data"][0]["id"]
        with Prometheus([url.removeprefix("http://")]) as prometheus:
            # Prometheus takes up to 5 s to find its targets.
            for number in range(140):
                get("/v1/embeddings", {"model": model, "input": [f"text {number}", "another one"]})
                time.sleep(0.1)
            known = metrics.labels_of_series()
            for line in get("/metrics").splitlines():
                if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
                    self.assertIn(match[1], known)
                    self.assertLessEqual(set(re.findall(r'(\w+)="', match[2] or "")), known[match[1]], line)
            found = results(prometheus, EVERYTHING, 4)
        for title in ("Requests by route", "Whole requests", "Where the time goes", "Rows of a batch", "Who serves what",
                      "Rollout document", "Answered by version", "Processor"):  # fmt: skip
            self.assertTrue(found[f"service.json: {title} A"], title)


if __name__ == "__main__":
    unittest.main()
