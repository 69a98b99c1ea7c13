"""Rules of Prometheus: they are valid, each alert was seen to fire and not to fire, and none speaks of what is not there; nor do the
pages that operators read."""

from __future__ import annotations

import re
import subprocess
import unittest
from collections import defaultdict

import metrics
import yaml
from machine import ROOT, needs
from metrics import ALERTS, RECORDED, RULE_FILES, RULES

TESTS = sorted((ROOT / "tests/deploy/rules").glob("*.test.yaml"))
RUNBOOK = ROOT / "docs/runbook.md"
# What an operator reads beside the chart's page.
PAGES = [RUNBOOK, ROOT / "docs/operate.md", ROOT / "docs/gpu.md"]
OTHER_TOOLS = r"(?:aws|\(cd|docker|helm|kubectl|nvidia-smi|scripts/gpu-check)"
SEVERITIES = {"critical", "warning", "info"}


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def flags(source: str) -> set[str]:
    """Those that a file defines, each before the field that holds it."""
    argument, others = r"#\[arg\(\s*long(?: = \"([^\"]+)\")?.*?\)\]\s+", r"(?:#\[[^\n]*\]\s+)*"
    found = re.findall(rf"{argument}{others}(?:pub(?:\(\w+\))? )?(\w+):", source, re.S)
    return {name or field.replace("_", "-") for name, field in found}


def without_other_tools(text: str) -> str:
    """A page without the commands of others, whose flags are not ours; what `sextant` is given inside of one stays."""
    return re.sub(rf"(?:^|`){OTHER_TOOLS} [^`\n]*?(?=-- sextant|`|$)", "", text, flags=re.M)


@needs("promtool")
class Promtool(unittest.TestCase):
    def run_promtool(self, *arguments: str) -> None:
        done = subprocess.run(["promtool", *arguments], cwd=ROOT / "tests/deploy/rules", capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules_are_valid(self) -> None:
        self.run_promtool("check", "rules", *map(str, RULE_FILES))

    def test_alerts_do_what_their_tests_say(self) -> None:
        self.run_promtool("test", "rules", *(path.name for path in TESTS))


class Alerts(unittest.TestCase):
    def test_each_was_seen_to_fire_and_not_to_fire_and_without_any_series(self) -> None:
        seen, without = defaultdict(set), set()
        for path in TESTS:
            for group in yaml.safe_load(path.read_text())["tests"]:
                for test in group.get("alert_rule_test", []):
                    seen[test["alertname"]].add(bool(test["exp_alerts"]))
                    if not group["input_series"]:
                        without.add(test["alertname"])
        for name in ALERTS:
            with self.subTest(name):
                self.assertEqual(seen[name], {True, False})
                self.assertIn(name, without)
        self.assertEqual(set(seen) - set(ALERTS), set(), "tests of alerts that are not there")

    def test_groups_are_evaluated_in_their_order(self) -> None:
        """promtool takes groups in any order unless told: an alert may then not see what was recorded for it, now and then."""
        for path in TESTS:
            tests = yaml.safe_load(path.read_text())
            groups = [group["name"] for file in tests["rule_files"] for group in yaml.safe_load((path.parent / file).read_text())["groups"]]
            self.assertEqual(tests["group_eval_order"], groups, path.name)

    def test_names_are_given_once(self) -> None:
        names = [rule["alert"] for rule in RULES if "alert" in rule]
        self.assertEqual(len(names), len(set(names)))

    def test_each_says_how_bad_it_is_what_it_saw_and_where_to_read_on(self) -> None:
        there = anchors(RUNBOOK.read_text(encoding="utf-8"))
        for name, alert in ALERTS.items():
            with self.subTest(name):
                self.assertIn(alert["labels"]["severity"], SEVERITIES)
                notes = alert["annotations"]
                self.assertEqual(set(notes), {"summary", "description", "runbook_url"})
                page, _, anchor = notes["runbook_url"].partition("#")
                self.assertEqual(page, "docs/runbook.md")
                self.assertIn(anchor, there)

    def test_the_runbook_has_no_section_of_an_alert_that_is_gone(self) -> None:
        headings = {anchor for anchor in anchors(RUNBOOK.read_text(encoding="utf-8")) if anchor.startswith("sextant")}
        self.assertEqual(headings, {alert["annotations"]["runbook_url"].partition("#")[2] for alert in ALERTS.values()})


class Pages(unittest.TestCase):
    """What operators paste at night must be there."""

    def test_commands_and_flags_that_they_name_are_there(self) -> None:
        sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs")}
        command_line = {path.relative_to(ROOT / "src/cli").with_suffix("").as_posix() for path in sources if "cli" in path.parts}
        known = set().union(*map(flags, sources.values()))
        self.assertLessEqual({"models", "of", "guard-window"}, known)
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for line in re.findall(r"^sextant (.*?)(?:  |$)|`sextant ([a-z][^`]*)`|-- sextant ([a-z][^`\n]*)", text, re.M):
                words = "".join(line).split()
                name = "/".join(words[:2]) if words[0] == "drift" else words[0]
                self.assertIn(name, command_line, f"{page.name}: {' '.join(words)}")
            named = set(re.findall(r"--([a-z][a-z0-9-]+)", without_other_tools(text)))
            # clap's own.
            self.assertEqual(named - known - {"version"}, set(), page.name)

    def test_series_that_they_name_are_there(self) -> None:
        known = set(metrics.defined()) | set(metrics.labels_of_series()) | RECORDED
        for page in PAGES:
            named = set(re.findall(r"\bsextant[_:][a-z_:]*[a-z]", page.read_text(encoding="utf-8")))
            self.assertEqual(named - known, set(), page.name)

    def test_links_between_pages_lead_somewhere(self) -> None:
        for page in PAGES:
            for link in re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text(encoding="utf-8")):
                name, _, anchor = link.partition("#")
                target = page.parent / name if name else page
                self.assertTrue(target.exists(), f"{page.name}: {link}")
                if anchor:
                    self.assertIn(anchor, anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}")


class Names(unittest.TestCase):
    def test_every_series_is_the_servers_or_a_rules(self) -> None:
        known = metrics.labels_of_series()
        labels_there_are = set().union(*known.values()) | {"bet", "window"}
        for rule in RULES:
            name = rule.get("alert") or rule["record"]
            with self.subTest(name):
                for series, labels in metrics.used(rule["expr"]).items():
                    self.assertTrue(series in known or series in RECORDED, f"no such series: {series}")
                    if series in known:
                        self.assertLessEqual(labels, known[series], f"labels of {series}")
                self.assertLessEqual(metrics.grouped(rule["expr"]), labels_there_are)

    def test_labels_of_texts_are_those_of_the_result(self) -> None:
        labels_there_are = set().union(*metrics.labels_of_series().values())
        for name, alert in ALERTS.items():
            spoken = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
            self.assertLessEqual(spoken, labels_there_are, name)

    def test_the_source_is_read_as_it_is_written(self) -> None:
        found = metrics.defined()
        some = {
            "sextant_http_requests_total": ("counter", ("route", "method", "status")),
            "sextant_stage_duration_seconds": ("histogram", ("model", "version", "stage")),
            "sextant_gate_probe_min_cosine": ("gauge", ("model", "version")),
            "sextant_drift_tail_total": ("counter", ("model", "version", "ref", "tail")),
            "sextant_drift_alarm": ("gauge", ("model", "version", "ref", "test")),
            "sextant_drift_learned_vectors": ("gauge", ("model", "version")),
            "sextant_shadow_seconds": ("histogram", ("model", "version", "side")),
            "sextant_shadow_failures_total": ("counter", ("model", "version")),
        }
        for name, expected in some.items():
            self.assertEqual((found[name].kind, found[name].labels), expected, name)


if __name__ == "__main__":
    unittest.main()
