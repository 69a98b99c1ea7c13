#!/usr/bin/env python3
"""Draws what the dashboards show, from real scraped data, without Grafana.

    python grafana/preview.py record data.json     # with .sextant/deploy-tools/bin/python
    python grafana/preview.py draw data.json       # needs matplotlib

`record` starts the tests' fleet of three servers and a Prometheus, and plays a story of some minutes: usual traffic, version 2 as a
canary, promoted, then strange texts, and the way back. `draw` writes docs/grafana-*.svg. `make preview` does both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/deploy")]
from make import dashboards  # noqa: E402

RATE_INTERVAL, STEP = "15s", 3


def record(data: Path, seconds: float) -> None:
    from fleet import STRANGE, Fleet, Load
    from panels import EVERYTHING, substituted
    from prometheus import Prometheus

    with tempfile.TemporaryDirectory(prefix="sextant-preview-") as folder, contextlib.ExitStack() as running:
        settings = {"cache_bytes": 1_000_000, "guard": {"window": "10s", "requests": 10, "pairs_per_second": 10}}
        fleet = Fleet(Path(folder), {"config": settings})
        running.callback(fleet.close)
        prometheus = running.enter_context(Prometheus([replica.admin for replica in fleet.replicas]))
        addresses = [replica.data for replica in fleet.replicas]
        began, part = time.time(), seconds / 5
        load = Load(addresses * 2, pause=0.08)
        running.callback(load.stop)
        time.sleep(part)
        fleet.change("rollout", "minilm@2", "--canary-percent", 30)
        time.sleep(part)
        fleet.change("promote", "minilm@2")
        time.sleep(part)
        strange = Load(addresses, pause=0.1)
        running.callback(strange.stop)
        strange.texts = STRANGE
        time.sleep(part)
        fleet.change("rollback", "minilm")
        time.sleep(part)
        ended = time.time()
        recorded: dict = {"began": began, "boards": {}}
        for file, board in dashboards().items():
            answers = {}
            for panel in board["panels"]:
                for target in panel.get("targets", []):
                    query = substituted(target["expr"], EVERYTHING, RATE_INTERVAL)
                    found = prometheus.query(query) if target["instant"] else prometheus.query_range(query, began, ended, STEP)
                    answers[f"{panel['id']}{target['refId']}"] = found
            marks = [prometheus.query_range(substituted(a["expr"], EVERYTHING, RATE_INTERVAL), began, ended, 1) for a in board["annotations"]["list"][:2]]
            recorded["boards"][file] = {"answers": answers, "marks": marks}
        data.write_text(json.dumps(recorded))


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).strip()


def shown(value: float, unit: str) -> str:
    """A number as Grafana would write it, more or less."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.4g} MiB"
    return f"{value:.5g}"


def _color(panel: dict, value: float) -> str:
    color = "white"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = {"green": "#b7e1b0", "orange": "#f8d29a", "red": "#f0a9a3"}.get(step["color"], "white")
    return color


def draw_panel(axes, panel: dict, answers: dict[str, list], began: float, marks: list[float]) -> None:
    unit, kind = panel["fieldConfig"]["defaults"]["unit"], panel["type"]
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(panel["title"], fontsize=8, loc="left", fontweight="bold", pad=3)
    found = [(target, series) for target in panel["targets"] for series in answers[f"{panel['id']}{target['refId']}"]]
    if not found and kind != "table":
        axes.text(0.5, 0.5, "No data", ha="center", va="center", fontsize=8, color="grey", transform=axes.transAxes)
    if kind != "timeseries" and (kind != "bargauge" or not found):
        axes.set_xticks([])
        axes.set_yticks([])
    if kind == "stat" and found:
        value = float(found[0][1]["value"][1])
        axes.set_facecolor(_color(panel, value))
        axes.text(0.5, 0.5, shown(value, unit), ha="center", va="center", fontsize=15, transform=axes.transAxes)
    elif kind == "bargauge" and found:
        bars = sorted(((float(s["value"][1]), legend(t["legendFormat"], s["metric"])) for t, s in found), key=lambda bar: abs(bar[0]))
        values = [value * (100 if unit == "percentunit" else 1) for value, _ in bars]
        axes.barh(range(len(bars)), values, color="#a8c7f7")
        for place, (value, (_, name)) in enumerate(zip(values, bars)):
            axes.text(0, place, f" {name} ", fontsize=6, va="center", ha="left" if value > 0 else "right")
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
        axes.set_xlabel("%", fontsize=6)
    elif kind == "table":
        columns = panel["transformations"][2]["options"]["renameByName"]
        rows = [[s["metric"].get(key, s["value"][1] if key == "Value" else "") for key in columns] for _, s in found][:9]
        cells = [list(columns.values()), *rows]
        widths = [2 + max(len(row[x]) for row in cells) for x in range(len(columns))]
        for y, row in enumerate(cells):
            for x, text in enumerate(row):
                axes.text(0.01 + sum(widths[:x]) / sum(widths), 0.93 - y * 0.1, text, fontsize=6, va="top",
                          transform=axes.transAxes, fontweight="normal" if y else "bold")  # fmt: skip
    elif kind == "timeseries":
        draw_series(axes, panel, found, began)
        for mark in marks:
            axes.axvline(mark - began, color="#3274d9", linewidth=0.7, linestyle=":")


def draw_series(axes, panel: dict, found: list, began: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit, stacked = defaults["unit"], defaults["custom"]["stacking"]["mode"] == "normal"
    dashed = [override["matcher"]["options"].strip("/") for override in panel["fieldConfig"]["overrides"]]
    found = sorted(found, key=lambda one: -max(float(value) for _, value in one[1]["values"]))[:8]
    factor = {"percentunit": 100, "s": 1e3, "bytes": 1 / 2**20}.get(unit, 1)
    below: dict[float, float] = {}
    for target, series in found:
        points = [(at, float(value) * factor) for at, value in series["values"]]
        floor = [below.get(at, 0) for at, _ in points]
        if stacked:
            points = [(at, value + low) for (at, value), low in zip(points, floor)]
            below.update(points)
        # A gap stays a gap.
        times, values = [], []
        for at, value in points:
            if times and at - began - times[-1] > 2 * STEP:
                times.append(math.nan)
                values.append(math.nan)
            times.append(at - began)
            values.append(value)
        name = legend(target["legendFormat"], series["metric"])
        style = "--" if any(re.search(pattern, name) for pattern in dashed) else "-"
        (line,) = axes.plot(times, values, style, linewidth=0.9, label=name, alpha=0.9)
        if stacked and len(times) == len(floor):
            axes.fill_between(times, values, floor, color=line.get_color(), alpha=0.25, linewidth=0)
    for step in defaults["thresholds"]["steps"][1:]:
        if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
            axes.axhline(step["value"] * factor, color="red", linewidth=0.6, linestyle="--")
    axes.tick_params(labelsize=6)
    axes.set_ylabel({"percentunit": "%", "s": "ms", "bytes": "MiB"}.get(unit, "" if unit == "short" else unit), fontsize=6)
    axes.grid(axis="y", linewidth=0.3)
    axes.locator_params(nbins=4)
    axes.ticklabel_format(useOffset=False, style="plain")
    if defaults.get("min") == 0 and found:
        axes.set_ylim(bottom=0)
    if found:
        axes.legend(fontsize=5, loc="best", framealpha=0.6, ncols=2 if len(found) > 4 else 1)


def draw(data: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sextant", "font.sans-serif": ["DejaVu Sans"]})
    from matplotlib import pyplot

    recorded = json.loads(data.read_text())
    for file, board in dashboards().items():
        kept, panels = recorded["boards"][file], board["panels"]
        columns, unit = 24, 0.34
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        figure = pyplot.figure(figsize=(columns * 0.62, height * unit))
        marks = sorted({min(at for at, _ in series["values"]) for found in kept["marks"] for series in found})
        for panel in panels:
            grid = panel["gridPos"]
            left, top = grid["x"] / columns, 1 - grid["y"] / height
            if panel["type"] == "row":
                figure.text(0.006, top - 0.5 / height, panel["title"], fontsize=11, va="center", color="#3274d9")
                continue
            box = [left + 0.028, top - (grid["h"] - 0.9) / height, grid["w"] / columns - 0.038, (grid["h"] - 2) / height]
            draw_panel(figure.add_axes(box), panel, kept["answers"], recorded["began"], marks)
        path = HERE.parent / f"docs/grafana-{file.removesuffix('.json')}.svg"
        figure.savefig(path, metadata={"Date": None})
        path.write_text(slim(path.read_text()))


def slim(svg: str) -> str:
    """The same picture in half the bytes: tenths of a point are enough, and nobody asks for a group by its name."""
    # Of coordinates, not of what is written.
    svg = re.sub(r'="[^"]*"', lambda value: re.sub(r"(?<=\d)\.(\d)\d{2,}", r".\1", value[0]), svg)
    svg = re.sub(r' id="(?:patch|text|axes|line2d|xtick|ytick|legend|figure|matplotlib|FillBetween)[\w.]*"', "", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return svg.replace("; stroke-linejoin: miter", "").replace("; stroke-linecap: square", "").replace("; stroke-linecap: butt", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "draw"])
    parser.add_argument("data", type=Path, help="JSON of what was scraped")
    parser.add_argument("--seconds", type=float, default=240, help="of the story")
    arguments = parser.parse_args()
    if arguments.what == "record":
        record(arguments.data, arguments.seconds)
    else:
        draw(arguments.data)


if __name__ == "__main__":
    main()
