"""Which metrics the server has, read from its source, and what the rules make of them: so that no rule, panel or page of a test can
make one up."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml
from machine import ROOT

RULE_FILES = sorted((ROOT / "helm/sextant/files/rules").glob("*.yaml"))
RULES = [rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
# Of the process, from the crate `prometheus`.
PROCESS = {name: "gauge" for name in ("process_max_fds", "process_open_fds", "process_resident_memory_bytes",
                                      "process_start_time_seconds", "process_threads", "process_virtual_memory_bytes")}  # fmt: skip
PROCESS["process_cpu_seconds_total"] = "counter"
# What Prometheus adds to each series it scrapes, and those that it makes itself.
TARGET = {"namespace", "job", "instance"}
OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity", "model", "version"}}


@dataclass(frozen=True)
class Metric:
    name: str
    kind: str
    labels: tuple[str, ...]

    def series(self) -> list[str]:
        """Names of its series."""
        return [self.name + end for end in ("_bucket", "_sum", "_count")] if self.kind == "histogram" else [self.name]


# A call that makes a family: its name, and what it is called with.
CALL = re.compile(
    r"(?P<call>counter|gauge|histogram|counts|sums|numbers|Opts::new)\(\s*(?P<registry>&?registry,\s*)?"
    r'"(?P<name>sextant_\w+)",\s*"(?:[^"\\]|\\.)*"(?P<rest>.*?)\)\?',
    re.S,
)
LIST = re.compile(r"&(?P<drift>labels\(&)?\[(?P<labels>[^\]]*)\]")
REFERENCE = ("model", "version", "ref")


def _kind(call: str, name: str) -> str:
    return "histogram" if call == "histogram" else "counter" if name.endswith("_total") else "gauge"


def defined() -> dict[str, Metric]:
    """Every family of src/metrics*.rs by its name."""
    found = {name: Metric(name, kind, ()) for name, kind in PROCESS.items()}
    files = [ROOT / "src/metrics.rs", *sorted((ROOT / "src/metrics").glob("*.rs"))]
    for text in (path.read_text(encoding="utf-8") for path in files):
        for match in CALL.finditer(text):
            name, listed = match["name"], LIST.search(match["rest"])
            labels = tuple(re.findall(r'"(\w+)"', listed["labels"])) if listed else ()
            # `counts`, `sums`, `numbers` and `labels` of drift.rs put the labels of a reference first.
            if match["call"] in ("counts", "sums", "numbers") or (listed and listed["drift"]):
                labels = REFERENCE + labels
            elif not listed:
                labels = ("model", "version")
            found[name] = Metric(name, _kind(match["call"], name), labels)
        written = set(re.findall(r'^\s*"(sextant_\w+)",|\("(sextant_\w+)"', text, re.M))
        missed = {a or b for a, b in written} - set(found)
        assert not missed, f"tests/deploy/metrics.py cannot read the definition of {sorted(missed)}"
    return found


def labels_of_series() -> dict[str, set[str]]:
    """Labels that each series may have, those of its target included."""
    series = {
        name: set(metric.labels) | ({"le"} if name.endswith("_bucket") else set())
        for metric in defined().values()
        for name in metric.series()
    }
    return {name: labels | TARGET for name, labels in (series | OWN).items()}


NAME = re.compile(r"(?<![\w:$\"])(?:sextant[_:][\w:]+|process_\w+|up|ALERTS)(?![\w:]*\()")
SELECTED = re.compile(r"((?:sextant|process|ALERTS|up)[\w:]*)\s*\{([^}]*)\}")


def used(query: str) -> dict[str, set[str]]:
    """Series that a query names, each with the labels that it selects by."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    names: dict[str, set[str]] = {name: set() for name in NAME.findall(bare)}
    for name, selector in SELECTED.findall(bare):
        names.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    return names


def grouped(query: str) -> set[str]:
    """Labels that a query groups or matches by."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", query)
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}
