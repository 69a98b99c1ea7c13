#!/usr/bin/env python3
"""Writes the dashboards into the chart, or with --check says whether they are what would be written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import drift
import service
from board import dashboard

THERE = Path(__file__).resolve().parents[1] / "helm/sextant/files/dashboards"
SERVICE, DRIFT = ("sextant-service", "Sextant: service"), ("sextant-drift", "Sextant: drift and versions")


def dashboards() -> dict[str, dict]:
    """Every dashboard by its file's name."""
    return {
        "service.json": dashboard(*SERVICE, "How an embedding server does; read from top to bottom.", service.ROWS, DRIFT),
        "drift.json": dashboard(*DRIFT, "Has the traffic moved, or the model? docs/drift.md explains the tests.", drift.ROWS, SERVICE),
    }


def main() -> int:
    stale = False
    for name, board in dashboards().items():
        path, text = THERE / name, json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale = True
            print(f"{name} is not what grafana/make.py makes: run it", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
