#!/usr/bin/env python3
"""Attacks the server in every way that is known to have hurt it, and says what each did: before, during and after.

    python3 benches/hostile/run.py [--only memory,queue]

Needs a release build, the model `minilm` (`make setup`) and an idle machine. The table and a JSON of it lie in `.sextant/hostile`. The exit
status is 1 if a bound is missed. Sections, and about how many seconds each takes on two cores:

    memory      240  equal texts, /tokenize and /metrics: resident memory
    queue       260  equal texts beside a full queue: throughput, /livez
    fairness    180  honest clients beside bulk requests and greedy connections
    tokenizing   90  words of 1 MB: honest clients beside them, and a quota
    audit        90  denied and dry changes: lines of the log
    files        80  files of a served version are overwritten, cut, replaced, removed: vectors, alarm
    stop         60  SIGTERM while a load blocks, SIGHUP under load
    wire        430  floods of HTTP/1 and HTTP/2, slow and deaf clients, ten thousand idle connections
    guard       240  a good canary beside a hostile caller (--guard-minutes), and two bad ones
    imports          checkpoints that never end (of a binary that bounds imports)
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests/deploy"))

import gauges  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import server  # noqa: E402

SECTIONS = ("memory", "queue", "fairness", "tokenizing", "audit", "files", "stop", "wire", "guard", "imports")
OUT = ROOT / ".sextant/hostile"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="these sections, separated by commas [default: all]")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="folder of the table and the JSON [default: %(default)s]")
    parser.add_argument("--guard-minutes", type=float, default=2, help="of a good canary beside a hostile caller [default: %(default)s]")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}: they are {', '.join(SECTIONS)}")
    return options


def figures(section: str, place: server.Place, options: argparse.Namespace) -> Iterator[report.Figure]:
    """Those of a section. One that fails ends with a figure that does not hold, so that the other sections are still measured."""
    try:
        more = {"minutes": options.guard_minutes} if section == "guard" else {}
        yield from importlib.import_module(f"sections.{section}").run(place, **more)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        yield report.Figure("could not be measured", during=f"{type(error).__name__}: {error}", holds=False)


def main() -> int:
    # The servers and attackers are ended by the blocks that began them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = arguments()
    if missing := machine.missing(machine.SERVER):
        raise SystemExit(f"there is no {', '.join(missing)}: `make setup` makes them, and SEXTANT names another binary")
    named, found = gauges.version(machine.BINARY), {}
    with tempfile.TemporaryDirectory() as folder:
        place = server.Place(machine.BINARY, pathlib.Path(folder) / "server")
        for section in options.only:
            report.progress(section)
            found[section] = []
            for figure in figures(section, place, options):
                report.progress(report.line(section, figure))
                found[section].append(figure)
                report.write(found, options.out, named)
    print(report.table(found), end="")
    return int(any(figure.holds is False for section in found.values() for figure in section))


if __name__ == "__main__":
    sys.exit(main())
