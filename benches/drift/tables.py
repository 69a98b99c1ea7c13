"""The measured runs as Markdown, as JSON and as a plot. What was not measured is left out."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import figures
import ours
import peers
import plot
import streams
from settings import Settings

OURS, PEER = "Sextant", "MMDDriftOnline"
EXPLANATION = f"""\
Every figure stands with its 95 % interval. *delay*: vectors from the change to the alarm, the change after {streams.BEFORE} unchanged
ones, in the runs without an alarm before it. *no alarm*: runs in which none came in {ours.AFTER:,} changed vectors (Sextant) or
{streams.AFTER:,} (MMDDriftOnline). *splits*: the least and the most of the splits' means. *cold start*: the change is there from the
first vector. MMDDriftOnline has {peers.STORED:,} reference vectors, a window of {peers.WINDOW} and {peers.BOOTSTRAPS:,} bootstraps."""


def write(results: Path, out: Path, settings: Settings, sextant: str) -> None:
    """`results.md`, `results.json` and `delay.svg` of the runs below `results`."""
    raw = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    out.mkdir(parents=True, exist_ok=True)
    found = {
        "versions": {"sextant": sextant, **{name: version(name) for name in ("alibi-detect", "evidently", "torch")}},
        "delays": _delays(raw, settings),
        "run_times": _run_times(raw),
        "curve": _curve(raw),
        "areas": {name: figures.mean(areas) for name, areas in raw.get("scores", {}).get("areas", {}).items()},
        "batches": _batches(raw),
        "references": raw.get("fit", {}),
    }
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    names = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    parts = [f"Measured with {names.replace('sextant sextant', 'sextant')}."]
    parts += [_show_delays(found), _show_run_times(found), _show_areas(found), _show_curve(found), _show_batches(found)]
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    plot.write(found["curve"], out / "delay.svg")


def _delays(raw: dict, settings: Settings) -> list[dict]:
    table = []
    for row in streams.DELAYS:
        sources = [(OURS, "counted", raw.get("replay", {}), str(row.number), settings.runs)]
        for which in ("every", "counted") if row.session > 1 else ("counted",):
            sources.append((PEER, which, raw.get("alibi", {}), f"{row.number} {which}", settings.peer_runs))
        for detector, which, source, key, block in sources:
            if not (firsts := source.get("firsts", {}).get(key)) or len(firsts) < 2:
                continue
            before = streams.BEFORE * (row.session if which == "every" else 1)
            blocks = [firsts["warm"][begin : begin + block] for begin in range(0, len(firsts["warm"]), block)]
            means = [figures.delays(part, before)["delay"] for part in blocks]
            table.append(
                {
                    "stream": row.name,
                    "session": row.session,
                    "detector": detector,
                    "takes": which,
                    "warm": figures.delays(firsts["warm"], before),
                    "cold": figures.delays(firsts["cold"], 0),
                    "splits": [mean[0] for mean in means if mean],
                }
            )
    return table


def _run_times(raw: dict) -> list[dict]:
    table = []
    replayed, peer = raw.get("replay", {}), raw.get("alibi", {})
    settings = {
        "plain": "every vector",
        "keyed": "one of each session",
        "design": "every vector, reference fitted in the order of sessions",
    }
    for row in streams.NULLS:
        for kind, takes in settings.items():
            key = f"{row.number} {kind}"
            for test, alarms in replayed.get("nulls", {}).get(key, {}).items():
                time = figures.run_time(alarms, replayed["lengths"][key])
                table.append({"stream": row.name, "detector": f"{OURS}, {test}", "takes": takes, "run_time": time})
        if alarms := peer.get("nulls", {}).get(str(row.number)):
            time = figures.run_time(alarms, peer["lengths"][str(row.number)])
            table.append({"stream": row.name, "detector": PEER, "takes": "every vector", "run_time": time})
    return table


def _curve(raw: dict) -> list[dict]:
    table = []
    for key, firsts in raw.get("curve", {}).get("firsts", {}).items():
        row, run_time = map(int, key.split())
        table.append({"row": row, "detector": OURS, "expected": run_time, **figures.delays(firsts, streams.BEFORE)})
    for row in (0, 1):
        # Its delays at 2,000 are those of the first table.
        at = {500: raw.get("alibi_short", {}).get("firsts", {}).get(str(row))}
        at[2_000] = raw.get("alibi", {}).get("firsts", {}).get(f"{row} counted", {}).get("warm")
        for run_time, firsts in at.items():
            if firsts:
                delays = figures.delays(firsts, streams.BEFORE)
                table.append({"row": row, "detector": PEER, "expected": run_time, **delays})
    return sorted(table, key=lambda entry: (entry["row"], entry["detector"] != OURS, entry["expected"]))


def _batches(raw: dict) -> dict:
    hits = raw.get("evidently", {}).get("hits", {})
    return {
        method: {cell: figures.rate(sum(flags), len(flags)) for cell, flags in cells.items()}
        for method, cells in hits.items()
    }


def _show_delays(found: dict) -> str:
    """A session stream's delay in all its vectors stands beside that in those that count."""
    header = ["stream", "detector", "takes", "delay", "runs", "alarms before", "no alarm", "splits", "cold start", "runs"]
    rows = []
    for entry in found["delays"]:
        warm, cold = entry["warm"], entry["cold"]
        factor = entry["session"] if entry["takes"] == "counted" else 1
        takes = "every vector" if entry["session"] == 1 or entry["takes"] == "every" else "one of each session"
        splits = entry["splits"]
        rows.append(
            [
                entry["stream"],
                entry["detector"],
                takes,
                _figure(warm["delay"]) + _in_stream(warm["delay"], factor),
                _runs(warm["delay"]),
                f"{warm['early']} of {warm['runs']}",
                str(warm["missing"]),
                f"{min(splits):.0f} to {max(splits):.0f}" if splits else "",
                _figure(cold["delay"]) + _in_stream(cold["delay"], factor),
                _runs(cold["delay"]) + (f" of {cold['runs']}" if cold["missing"] else ""),
            ]
        )
    return "## Delay at an expected run time of 2,000\n\n" + EXPLANATION + "\n\n" + _table(header, rows)


def _show_run_times(found: dict) -> str:
    rows = [
        [entry["stream"], entry["detector"], entry["takes"], _figure(entry["run_time"]), _runs(entry["run_time"])]
        for entry in found["run_times"]
    ]
    header = ["unchanged stream", "detector", "takes", "vectors between alarms", "alarms"]
    return "## Realised run time at an expected one of 2,000\n\n" + _table(header, rows)


def _show_areas(found: dict) -> str:
    areas = dict(found["areas"])
    rows = [[f"{OURS}, `ood_score`", _figure(areas.pop("ours"), 4)]] if "ours" in areas else []
    rows += [[f"7,000 stored vectors, {name}", _figure(area, 4)] for name, area in areas.items()]
    return "## Area under the ROC curve, one vector\n\n" + _table(["score", "area"], rows)


def _show_curve(found: dict) -> str:
    header = ["stream", "detector", "expected run time", "delay", "runs", "alarms before", "no alarm"]
    rows = [
        [
            streams.DELAYS[entry["row"]].name,
            entry["detector"],
            f"{entry['expected']:,}",
            _figure(entry["delay"]),
            _runs(entry["delay"]),
            f"{entry['early']} of {entry['runs']}",
            str(entry["missing"]),
        ]
        for entry in found["curve"]
    ]
    return "## Delay by expected run time\n\n" + _table(header, rows)


def _show_batches(found: dict) -> str:
    kinds = [streams.NULLS[0], *streams.DELAYS[:2]]
    cells = [(size, row) for size in (100, 500) for row in kinds]
    names = ["unchanged", "10 % oos", "20 % oos"] * 2
    header = ["Evidently's method", *(f"{size}, {name}" for (size, _), name in zip(cells, names))]
    rows = []
    for method, rates in found["batches"].items():
        shown = [rates.get(f"{size} {row.number}") for size, row in cells]
        rows.append([method, *(_figure(rate, 2) for rate in shown)])
    count = {rate[3] for rates in found["batches"].values() for rate in rates.values()}
    batches = " and ".join(str(number) for number in sorted(count))
    return f"## Share of batches called drifted, {batches} batches each\n\n" + _table(header, rows)


def _figure(figure, digits: int = 0) -> str:
    if figure is None:
        return ""
    value, low, high = (f"{number:,.{digits}f}" if math.isfinite(number) else "inf" for number in figure[:3])
    return f"{value} ({low} to {high})"


def _in_stream(figure, factor: int) -> str:
    return f"; {figure[0] * factor:,.0f} in the stream" if figure and factor > 1 else ""


def _runs(figure) -> str:
    return str(figure[3]) if figure else "0"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
