"""Refused and dry changes without end: the lines that one key writes into the audit log."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator

import gauges
from report import Figure
from server import MODEL, Place, Server

# A dry run looks into the repository, so that fewer may be done within the time.
REQUESTS, CONNECTIONS, SECONDS = 5_000, 20, 40
# Of one caller in ten seconds; one more for each outcome says how many were left out.
LINES, WINDOW = 10, 10.0
DRY = json.dumps({"version": 1, "dry_run": True, "reason": "hostile"})


def run(place: Place) -> Iterator[Figure]:
    # A key of the role embed is denied; an administrator's dry run is not.
    for key, what in (("greedy", "rollouts that are denied"), ("operator", "dry runs of a rollout")):
        with place.serving("--log-format", "json") as server:
            yield written(server, key, what)


def lines(server: Server) -> list[dict]:
    """Those of the audit."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("message") == "audit"]


def written(server: Server, key: str, what: str) -> Figure:
    recipe = {"kind": "given", "given": [DRY]}
    plan = {"recipe": recipe, "path": f"/admin/v1/models/{MODEL}/rollout", "key": key, "connections": CONNECTIONS}
    before, began = len(lines(server)), time.monotonic()
    with gauges.flooding(server, times=REQUESTS // CONNECTIONS, pause=0.0, **plan) as flood:
        with contextlib.suppress(TimeoutError):
            server.until("all is answered", flood.is_over, SECONDS)
        seconds, done = time.monotonic() - began, flood.done()
    time.sleep(WINDOW + 1)
    found = lines(server)[before:]
    outcomes = {line.get("outcome") for line in found}
    most = (LINES + len(outcomes)) * math.ceil(seconds / WINDOW + 1)
    told, sent = sum(int(line.get("count", 1)) for line in found), done["sent"]
    return Figure(
        f"{what}, {sent:,} by one key",
        during=f"{len(found)} lines for {sent / seconds:.0f} requests a second ({gauges.told(done)}), which count {told:,}",
        bound=f"<= {most} lines: {LINES} for each {WINDOW:.0f} s and one for each outcome; all are counted",
        # The last ones are answered to connections that are gone.
        holds=0 < len(found) <= most and sent - CONNECTIONS <= told <= sent,
    )
