"""Runs the phases, prints the table, and leaves nothing behind."""

from __future__ import annotations

import signal
import tempfile
import time
import traceback
from pathlib import Path

from . import facts, options
from .binary import Children, CommandFailed
from .checks import beside, correctness, devices, faults, latency, placement, soak, throughput
from .context import Context
from .options import Options
from .report import Report, say, stated

CHECKS = {
    "devices": devices.check,
    "correctness": correctness.check,
    "placement": placement.check,
    "throughput": throughput.check,
    "latency": latency.check,
    "beside": beside.check,
    "soak": soak.check,
    "faults": faults.check,
}


def main(description: str) -> int:
    given = options.parse(description)
    report = Report(given.json)
    children = Children()
    # Ctrl-C, and what a time limit sends: it ends what it started, and prints what it found. A shell that starts it in the background
    # has the first ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, children.interrupt)
    with tempfile.TemporaryDirectory(prefix="sextant-gpu-check-", ignore_cleanup_errors=True) as folder:
        try:
            report.facts = facts.gather(given)
            run(given, report, Context(given, report, Path(folder), children))
        except KeyboardInterrupt:
            report.interrupted = True
        finally:
            # A second signal must not keep servers alive.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            children.end_all()
    report.write()
    if report.facts:
        print(f"{facts.told(report.facts)}\n")
    print(f"{report.table()}\n\n{report.summary()}", flush=True)
    return report.exit_code(given.allow_skips)


def run(given: Options, report: Report, context: Context) -> None:
    """All phases that are asked for. One that breaks off has failed, and the next ones are checked all the same."""
    for phase in given.only:
        say(f"--- {phase}")
        started = time.monotonic()
        try:
            CHECKS[phase](context)
        except CommandFailed as error:
            report.add(stated(f"{phase}: can be checked", False, str(error)))
        except Exception as error:
            # An answer of another form than this script knows, as a rule: whoever mends it needs to see where.
            traceback.print_exc()
            report.add(stated(f"{phase}: can be checked", False, f"{type(error).__name__}: {error}"))
        report.facts.setdefault("phase_seconds", {})[phase] = round(time.monotonic() - started, 1)
    context.stop_servers()
