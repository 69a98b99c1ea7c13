"""What a dashboard is made of: panels that are laid out in rows of 24 columns, with what Grafana wants in its JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

# Of Grafana 12; 11 reads it as well.
SCHEMA = 41
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Selectors by the variables, written @N, @M and @V in queries: of a namespace, of its models, of their versions.
SELECTORS = {
    "@N": 'namespace=~"$namespace"',
    "@M": 'namespace=~"$namespace",model=~"$model"',
    "@V": 'namespace=~"$namespace",model=~"$model",version=~"$version"',
    # Routes that answer vectors.
    "@E": 'route=~"/(v1/embeddings|embed.*|similarity)?"',
}
ALL = {"text": ["All"], "value": ["$__all"]}


@dataclass
class Panel:
    """One panel: `queries` are pairs of legend and PromQL."""

    title: str
    says: str
    queries: list[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    # Value and colour, the first from minus infinity.
    steps: list[tuple[float | None, str]] = field(default_factory=list)
    low: float | None = 0
    high: float | None = None
    stack: bool = False
    decimals: int | None = None
    # Tables: columns by their names in the answer, as they are shown. Others are left out.
    columns: dict[str, str] = field(default_factory=dict)
    # Series whose legend matches are drawn dashed and without points: bounds, not measurements.
    dashed: str | None = None
    log: bool = False

    @property
    def instant(self) -> bool:
        return self.kind in ("table", "stat", "bargauge")


def expand(query: str) -> str:
    """The query with its selectors, on one line."""
    for short, selector in SELECTORS.items():
        query = re.sub(rf"{short}\b", lambda _: selector, query)
    return " ".join(query.split())


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or [(None, "text" if panel.kind == "stat" else "green")]
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "table":
        return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stack else 0,
        "showPoints": "never",
        # A gap is a finding: a replica that was away must not look as if it had gone on.
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
        "axisPlacement": "auto",
    }


def _options(panel: Panel) -> dict[str, Any]:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        return {"reduceOptions": reduce, "colorMode": "background", "graphMode": "none", "textMode": "auto", "justifyMode": "center"}
    if panel.kind == "bargauge":
        return {"reduceOptions": reduce, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": True}
    return {"showHeader": True, "cellHeight": "sm"}


def _targets(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expand(query),
            "legendFormat": legend,
            "range": not panel.instant,
            "instant": panel.instant,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for place, (legend, query) in enumerate(panel.queries)
    ]


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    if panel.kind != "table":
        return []
    names = list(panel.columns)
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
        {"id": "organize", "options": {"renameByName": panel.columns, "indexByName": {n: i for i, n in enumerate(names)}}},
    ]


def _json(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": _custom(panel), "thresholds": _thresholds(panel), "mappings": []}
    defaults["color"] = {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"}
    for key, value in {"min": panel.low, "max": panel.high, "decimals": panel.decimals}.items():
        if value is not None:
            defaults[key] = value
    overrides = []
    if panel.dashed:
        style = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        overrides.append({"matcher": {"id": "byRegexp", "options": f"/{panel.dashed}/"}, "properties": [style]})
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": _targets(panel),
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": _options(panel),
        "transformations": _transformations(panel),
    }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    # Where metrics have no such label, `.*` matches what is not there.
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": f"variable-{name}", "qryType": 1}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": ALL, "options": [], "hide": 0,
    }  # fmt: skip


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
              "current": {}, "options": [], "multi": False, "includeAll": False, "hide": 0}  # fmt: skip
    info = "sextant_version_info"
    return [
        source,
        _variable("namespace", "Namespace", "label_values(sextant_sync_failures_total, namespace)"),
        _variable("model", "Model", f"label_values({info}{{{SELECTORS['@N']}}}, model)"),
        _variable("version", "Version", f"label_values({info}{{{SELECTORS['@M']}}}, version)"),
    ]


def _annotation(name: str, color: str, query: str, title: str, text: str) -> dict[str, Any]:
    return {"name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": color, "expr": expand(query),
            "titleFormat": title, "textFormat": text, "useValueForTime": False, "step": "15s"}  # fmt: skip


# All replicas count one change: the greatest, not the sum.
ANNOTATIONS = [
    _annotation("Rollouts", "blue", 'max by (model, action) (increase(sextant_rollout_changes_total{@M,cause="operator"}[1m])) > 0',
                "{{model}}: {{action}}", "by an operator; `sextant history {{model}}` says who and why"),
    _annotation("Taken back by the guard", "red",
                'max by (model, cause) (increase(sextant_rollout_changes_total{@M,action="rollback",cause!="operator"}[1m])) > 0',
                "{{model}}: taken back", "by the guard for `{{cause}}`"),
    _annotation("Alerts", "orange", 'ALERTS{@N,alertname=~"Sextant.*",alertstate="firing"}', "{{alertname}}", "{{severity}} {{model}}"),
]  # fmt: skip


def dashboard(uid: str, title: str, says: str, rows: list[tuple[str, list[Panel]]], other: tuple[str, str]) -> dict[str, Any]:
    """The whole JSON; panels flow from left to right, a row of them is as high as its highest."""
    panels: list[dict[str, Any]] = []
    y = 0
    for name, members in rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})  # fmt: skip
        x, y, height = 0, y + 1, 0
        for panel in members:
            if x + panel.width > 24:
                x, y, height = 0, y + height, 0
            panels.append(_json(panel, len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    link = {"title": other[1], "type": "link", "url": f"/d/{other[0]}", "includeVars": True, "keepTime": True, "icon": "dashboard",
            "asDropdown": False, "targetBlank": False, "tags": [], "tooltip": ""}  # fmt: skip
    return {
        "uid": uid, "title": title, "description": says, "tags": ["sextant"], "schemaVersion": SCHEMA, "version": 1, "editable": True,
        "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "browser", "fiscalYearStartMonth": 0,
        "templating": {"list": _variables()}, "annotations": {"list": ANNOTATIONS}, "links": [link], "panels": panels,
    }  # fmt: skip
