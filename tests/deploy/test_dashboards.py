"""Dashboards: their JSON is what grafana/make.py makes and whole, and a real Prometheus answers every query of theirs, here on a page
with every metric of the server. test_fleet.py asks the same of real servers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import unittest

import metrics
from exporter import Exporter
from machine import ROOT, needs
from metrics import RECORDED
from panels import BOARDS, EVERYTHING, panels, queries, recorded, results, substituted
from prometheus import Prometheus


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
        for name, query, _, _ in queries():
            with self.subTest(name):
                for series, labels in metrics.used(query).items():
                    self.assertTrue(series in known or series in RECORDED, f"no such series: {series}")
                    if series in known:
                        self.assertLessEqual(labels, known[series], f"labels of {series}")
                self.assertLessEqual(metrics.grouped(query), labels_there_are)

    def test_no_metric_of_the_server_is_shown_nowhere(self) -> None:
        shown = {series for _, query, _, _ in queries() for series in metrics.used(query)}
        rules = "".join(path.read_text() for path in metrics.RULE_FILES)
        hidden = {metric.name for metric in metrics.defined().values() if metric.name.startswith("sextant_")
                  and not shown & set(metric.series()) and metric.name not in rules}  # fmt: skip
        self.assertEqual(hidden, set())


@needs("prometheus")
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
        self.assertEqual([name for name, series in results(self.prometheus, chosen, 4).items() if not series], [])

    def test_variables_find_their_values(self) -> None:
        for variable in BOARDS["drift.json"]["templating"]["list"][1:]:
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            match = {"match[]": substituted(series, EVERYTHING)}
            self.assertTrue(self.prometheus.get(f"label/{label}/values", **match), variable["name"])

    def test_rules_are_evaluated_without_errors(self) -> None:
        self.assertTrue(recorded(self.prometheus))


if __name__ == "__main__":
    unittest.main()
