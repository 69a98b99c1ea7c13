"""What was measured, as one table for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time

_BEGAN = time.monotonic()
_HEAD = ("section", "attack", "before", "during", "after", "bound", "holds")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One attack, and what it did to the server. A figure without a bound is only told."""

    attack: str
    before: str = ""
    during: str = ""
    after: str = ""
    bound: str = ""
    # None where there is no bound.
    holds: bool | None = None


def progress(message: str) -> None:
    """Says what begins, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGAN:6.0f} s] {message}", flush=True)


def megabytes(value: int) -> str:
    return f"{value / 1e6:.0f} MB"


def line(section: str, one: Figure) -> str:
    """The line of a table for one figure."""
    holds = {True: "yes", False: "**no**", None: ""}[one.holds]
    return _row((section, one.attack, one.before, one.during, one.after, one.bound, holds))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(found: dict[str, list[Figure]]) -> str:
    """A Markdown table with one line for each figure."""
    lines = [line(section, one) for section, figures in found.items() for one in figures]
    return "\n".join([_row(_HEAD), _row(("---",) * len(_HEAD)), *lines, ""])


def write(found: dict[str, list[Figure]], folder: pathlib.Path, version: str) -> None:
    """Replaces `hostile.md` and `hostile.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile.md").write_text(f"{version}\n\n{table(found)}", encoding="utf-8")
    sections = {section: [dataclasses.asdict(one) for one in figures] for section, figures in found.items()}
    text = json.dumps({"version": version, "sections": sections}, indent=1)
    (folder / "hostile.json").write_text(text + "\n", encoding="utf-8")
