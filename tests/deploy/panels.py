"""What the dashboards ask of Prometheus, and whether an answer is one."""

from __future__ import annotations

import json
import math
import re
import time

from machine import ROOT
from metrics import RECORDED
from prometheus import Prometheus

BOARDS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "helm/sextant/files/dashboards").glob("*.json"))}
EVERYTHING = {"namespace": ".*", "model": ".*", "version": ".*"}


def panels(board: dict) -> list[dict]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str, str, bool]]:
    """Name, PromQL, legend and whether it is of one moment, of every panel and annotation."""
    found = []
    for file, board in BOARDS.items():
        for panel in panels(board):
            # A table's columns are labels as a legend's are.
            shown = "".join(f"{{{{{label}}}}}" for label in labels_of_table(panel))
            found += [(f"{file}: {panel['title']} {t['refId']}", t["expr"], t["legendFormat"] + shown, t["instant"]) for t in panel["targets"]]
        found += [(f"{file}: annotation {a['name']}", a["expr"], a["titleFormat"], False) for a in board["annotations"]["list"]]
    return found


def labels_of_table(panel: dict) -> set[str]:
    """Labels without which a row would have an empty cell; alerts have what their rules group by."""
    columns = panel["transformations"][1]["options"]["include"]["names"] if panel["type"] == "table" else []
    return set() if "alertname" in columns else set(columns) - {"Value"}


def substituted(query: str, variables: dict[str, str], rate_interval: str = "5s") -> str:
    query = query.replace("$__rate_interval", rate_interval)
    for name, value in variables.items():
        query = re.sub(rf"\${name}\b", lambda _, value=value: value, query)
    assert "$" not in query, query
    return query


def checked(name: str, query: str, series: list[dict]) -> list[dict]:
    """The series, where each is a number at each moment and none is there twice."""
    values = [float(value) for one in series for _, value in ([one["value"]] if "value" in one else one["values"])]
    assert not any(math.isnan(value) for value in values), f"{name} gives NaN: {query}"
    names = [tuple(sorted(one["metric"].items())) for one in series]
    assert len(set(names)) == len(names), f"{name} gives a series twice: {query}"
    return series


def results(prometheus: Prometheus, variables: dict[str, str], seconds: float) -> dict[str, list]:
    """What each query finds in the last `seconds`. One that is refused, gives no number or lacks a label of its legend is an error."""
    found, now = {}, time.time()
    for name, query, legend, instant in queries():
        query = substituted(query, variables)
        try:
            series = prometheus.query(query) if instant else prometheus.query_range(query, now - seconds, now, 1)
        except ValueError as error:
            raise AssertionError(f"{name}: {error}\n{query}") from None
        wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
        # A series may lack one: refused requests that never had a model.
        there = [wanted <= set(one["metric"]) for one in series]
        assert not there or any(there), f"{name}: no series has all of {wanted}, which its legend shows: {series[0]['metric']}"
        found[name] = checked(name, query, series)
    return found


def recorded(prometheus: Prometheus) -> dict[str, list]:
    """What each recording rule has recorded now; a rule that fails is an error."""
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
    return {name: checked(name, name, prometheus.query(name)) for name in sorted(RECORDED)}
