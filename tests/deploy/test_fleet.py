"""Three real servers on one repository, under load, a real Prometheus with the chart's rules beside them: what an operator sees of a
rollout, a rollback and a change of the traffic."""

import contextlib
import pathlib
import re
import tempfile
import time
import unittest
import urllib.request

import metrics
from fleet import STRANGE, Fleet, Load, until
from machine import HELM, SERVER, needs
from panels import EVERYTHING, recorded, results
from prometheus import PROGRAMS, Alertmanager, Prometheus

# Rules see a minute as a second.
TIMES = 60
SYNC_SECONDS = 2
# What nothing in this story gives rise to.
EMPTY = {
    "drift.json: Learning A": "the version has a reference",
    "drift.json: annotation Taken back by the guard": "an operator took it back",
    "service.json: GPU memory A": "they compute on processors",
    "service.json: GPU memory B": "they compute on processors",
    "service.json: GPU in use A": "they compute on processors",
    "service.json: Certificates A": "nobody speaks TLS",
    "service.json: Certificates B": "nobody speaks TLS",
    "service.json: annotation Taken back by the guard": "an operator took it back",
}


@needs(*SERVER, HELM, *PROGRAMS)
class Watched(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with contextlib.ExitStack() as started:
            folder = pathlib.Path(started.enter_context(tempfile.TemporaryDirectory(prefix="sextant-fleet-")))
            cls.fleet = Fleet(folder, {"config": {"guard": {"window": "3s", "requests": 10, "pairs_per_second": 20}}})
            started.callback(cls.fleet.close)
            cls.alertmanager = started.enter_context(Alertmanager())
            cls.prometheus = started.enter_context(Prometheus([r.admin for r in cls.fleet.replicas], cls.alertmanager, TIMES))
            cls.load = Load([replica.data for replica in cls.fleet.replicas] * 2, pause=0.06)
            started.callback(cls.load.stop)
            # Until the first scrape it says that nothing is there.
            until("three replicas are scraped", lambda: len(cls.prometheus.query("sextant_rollout_generation")) == 3)
            until("no alert fires", lambda: not cls.prometheus.query('ALERTS{alertstate="firing"}'))
            cls.began = time.time()
            cls.tell_the_story()
            cls.addClassCleanup(started.pop_all().close)

    @classmethod
    def tell_the_story(cls):
        time.sleep(10)
        cls.fleet.change("rollout", "minilm@2", "--canary-percent", 40)
        until("canary and stable are compared", lambda: cls.prometheus.query("sextant_shadow_neighbour_overlap > 0"))
        cls.fleet.change("promote", "minilm@2")
        time.sleep(6)
        cls.rolling_back = time.time()
        cls.fleet.change("rollback", "minilm")
        cls.rolled_back = time.time()
        # The alerts of drift wait until a rollout has been over for a while.
        time.sleep(15)
        cls.load.texts = STRANGE
        cls.moved = time.time()
        until("the shift alarm is told", lambda: cls.told("SextantDriftShift"), 120)
        # It is told before it is written down.
        time.sleep(3)

    @classmethod
    def told(cls, alert):
        return [labels for labels in cls.alertmanager.alerts() if labels["alertname"] == alert]

    def test_no_request_failed(self):
        self.assertEqual(self.load.failures(), [])
        self.assertGreater(len(self.load.answers), 1000)

    def test_a_rollback_is_seen_everywhere_in_time(self):
        """Within the poll interval and a second, from the answer to whoever asked for it."""
        late = [a for a in self.load.answers if a.at > self.rolled_back + SYNC_SECONDS + 1 and a.version != "minilm@1"]
        self.assertEqual(late, [])
        # Up to the command, not to its answer: replicas follow while it is on its way.
        before = {a.version for a in self.load.answers if self.rolling_back - 2.5 < a.at < self.rolling_back}
        self.assertEqual(before, {"minilm@2"}, "it served alone until then")
        generations = self.prometheus.query("sextant_rollout_generation")
        self.assertEqual([one["value"][1] for one in generations], [generations[0]["value"][1]] * 3)

    def test_a_moved_traffic_raises_an_alarm_that_names_the_model(self):
        [told] = self.told("SextantDriftShift")
        self.assertEqual({name: told[name] for name in ("model", "version", "severity", "job", "namespace")},
                         {"model": "minilm", "version": "1", "severity": "info", "job": "sextant", "namespace": "prod"})  # fmt: skip
        before = self.prometheus.query_range('sum(sextant_drift_alarm{test="shift"})', self.began + 5, self.moved, 1)
        self.assertEqual({value for _, value in before[0]["values"]}, {"0"}, "quiet before the traffic moved")

    def test_every_panel_has_its_data(self):
        found = results(self.prometheus, EVERYTHING, time.time() - self.began - 8)
        self.assertEqual({name for name, series in found.items() if not series}, set(EMPTY))
        versions = {one["metric"]["version"] for one in found["service.json: Answered by version A"]}
        self.assertEqual(versions, {"1", "2"})
        self.assertEqual(len(found["service.json: Rollout document A"]), 3)

    def test_every_rule_has_its_data(self):
        # An hour of the rules is a minute here, so the longest windows are whole as well as the short ones.
        empty = {name for name, series in recorded(self.prometheus).items() if not series}
        # Both are there for a while after a change only.
        self.assertEqual(empty - {"sextant:drift_reference:fresh", "sextant:rollout:fresh"}, set())
        for name in ("sextant:drift_reference:fresh", "sextant:rollout:fresh"):
            self.assertTrue(self.prometheus.query_range(name, self.began, time.time(), 1), name)

    def test_no_alert_fires_but_those_of_the_traffic(self):
        firing = self.prometheus.query_range('ALERTS{alertstate="firing"}', self.began, time.time(), 1)
        fired = {one["metric"]["alertname"] for one in firing}
        self.assertIn("SextantDriftShift", fired)
        # To load a version takes minutes of the rules' time: meanwhile generations differ.
        allowed = {"SextantDriftShift", "SextantDriftOutside", "SextantDriftFleet", "SextantGenerationsDiffer"}
        self.assertLessEqual(fired, allowed)
        before = {one["metric"]["alertname"] for one in firing if float(one["values"][0][0]) < self.moved}
        self.assertLessEqual(before, {"SextantGenerationsDiffer"})

    def test_a_page_of_metrics_is_as_the_source_says(self):
        known = metrics.labels_of_series()
        with urllib.request.urlopen(f"http://{self.fleet.replicas[1].admin}/metrics") as answer:
            page = answer.read().decode()
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.M):
            self.assertIn(name, known)
            self.assertLessEqual(set(re.findall(r'(\w+)="', labels)), known[name], name)


if __name__ == "__main__":
    unittest.main()
