"""What the checks found, whether it is enough, and what all of it comes to."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

PASSED = "passed"
FAILED = "FAILED"
# It could not be made here; the row says why.
SKIPPED = "skipped"
# It was measured in a way that allows no verdict; the row says why.
NOT_JUDGED = "not judged"
# A figure that nothing is asked of.
INFORMATION = "-"

# Characters of a figure in the table.
LONGEST = 80

# Exit codes.
DONE, FELL_SHORT, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class Bound:
    """What a figure must keep."""

    least: float | None = None
    most: float | None = None
    unit: str = ""

    def holds(self, figure: float | None) -> bool:
        """What is no number keeps no bound."""
        if figure is None or not math.isfinite(figure):
            return False
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)

    def __str__(self) -> str:
        parts = [f"{word} {number:g}" for word, number in ((">=", self.least), ("<=", self.most)) if number is not None]
        return " and ".join(parts) + self.unit


@dataclass(frozen=True)
class Row:
    """One check: `figure` and `bound` for people, `values` every number that lies behind them."""

    check: str
    figure: str
    verdict: str
    bound: str = ""
    values: dict = field(default_factory=dict)


def measured(check: str, value: float | None, bound: Bound, figure: str = "", judged: bool = True, **values) -> Row:
    """A figure held against its bound. Where it is not `judged`, a figure that keeps its bound proves nothing, and one that does not is
    no failure."""
    shown = figure or ("no number" if value is None else f"{value:.6g}{bound.unit}")
    verdict = (PASSED if bound.holds(value) else FAILED) if judged else NOT_JUDGED
    return Row(check, shown, verdict, str(bound), {"value": value} | values)


def stated(check: str, holds: bool, figure: str, bound: str = "", **values) -> Row:
    """A check whose figure is no number."""
    return Row(check, figure, PASSED if holds else FAILED, bound, values)


def skipped(check: str, reason: str) -> Row:
    return Row(check, reason, SKIPPED)


def information(check: str, figure: str, **values) -> Row:
    return Row(check, figure, INFORMATION, values=values)


class Report:
    """The rows so far, told as they come and kept in `path`, if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[Row] = []
        # Of the whole run: device, driver, date, versions, settings.
        self.facts: dict = {}
        self.interrupted = False

    def add(self, row: Row) -> None:
        self.rows.append(row)
        bound = f" (must be {row.bound})" if row.bound else ""
        say(f"{row.verdict:<10}  {row.check}: {row.figure}{bound}")
        self.write()

    def exit_code(self, allow_skips: bool) -> int:
        """A row that fails outweighs all else. A run without a row has checked nothing."""
        verdicts = [row.verdict for row in self.rows]
        if FAILED in verdicts:
            return FELL_SHORT
        if self.interrupted:
            return INTERRUPTED
        if PASSED not in verdicts:
            return INCOMPLETE
        if not allow_skips and (SKIPPED in verdicts or NOT_JUDGED in verdicts):
            return INCOMPLETE
        return DONE

    def write(self) -> None:
        """Replaces the file at once: one that is cut short would say nothing."""
        if self.path is None:
            return
        document = self.facts | {"interrupted": self.interrupted, "rows": [plain(asdict(row)) for row in self.rows]}
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(beside, self.path)

    def table(self) -> str:
        """What is too long for a line of it was told in whole when it came."""
        head = ("check", "figure", "bound", "verdict")
        shown = [row.figure if len(row.figure) <= LONGEST else f"{row.figure[:LONGEST]}..." for row in self.rows]
        lines = [head, *((row.check, figure, row.bound, row.verdict) for row, figure in zip(self.rows, shown))]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[3]]) for line in lines)

    def summary(self) -> str:
        count = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in (PASSED, FAILED, SKIPPED, NOT_JUDGED)}
        parts = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number or verdict == PASSED)
        return f"{'interrupted: ' if self.interrupted else ''}{parts}"


def plain(value):
    """The same for JSON, which has no word for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def say(line: str) -> None:
    """Progress, beside the table on standard output."""
    print(f"gpu-check: {line}", file=sys.stderr, flush=True)
