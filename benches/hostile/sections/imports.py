"""Checkpoints that never end or grow without bound when they are imported: seconds and memory until the import gives up.

Needs the flags that bound an import; a binary without them is passed over.
"""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator

import checkpoints
import gauges
import machine
from report import Figure, megabytes, progress
from server import MODEL, Place, memory

TIMEOUT, MEMORY = 20, 1_500_000_000
FLAGS = {"--import-timeout": f"{TIMEOUT}s", "--import-memory": str(MEMORY)}
# Between two looks a process takes a hundred megabytes more, and what it maps from files is not counted.
BESIDE_SECONDS, BESIDE_BYTES = 10, 400_000_000
GIVEN_UP = 120


def run(place: Place) -> Iterator[Figure]:
    if missing := [flag for flag in FLAGS if not place.knows("import", flag)]:
        progress(f"imports: passed over, since `sextant import` has no {', '.join(missing)}")
        return
    for what, make in checkpoints.HOSTILE.items():
        with place.made():
            yield imported(place, what, make)


def imported(place: Place, what: str, make: Callable[[pathlib.Path, pathlib.Path], None]) -> Figure:
    checkpoint = place.folder / "checkpoint"
    make(machine.WEIGHTS, checkpoint)
    line = [place.binary, "import", checkpoint, "--models", place.models, "--name", MODEL]
    line += [part for flag in FLAGS.items() for part in flag]
    began = time.monotonic()
    process = subprocess.Popen(list(map(str, line)), env=machine.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with gauges.Sampler(lambda: memory(process.pid, "VmHWM"), gauges.SAMPLE_SECONDS) as sampled:
        try:
            told = process.communicate(timeout=GIVEN_UP)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            told = process.communicate()[1]
    seconds, published = time.monotonic() - began, any(place.models.rglob("manifest.toml"))
    holds = (process.returncode == 1 and not published and seconds <= TIMEOUT + BESIDE_SECONDS
             and sampled.largest <= MEMORY + BESIDE_BYTES)  # fmt: skip
    return Figure(
        f"import of {what}",
        during=f"ended after {seconds:.1f} s with {process.returncode}, peak {megabytes(int(sampled.largest))}: {' '.join(told.split())[:300]}",
        bound=f"exit code 1 within {TIMEOUT} s (+ {BESIDE_SECONDS}), {megabytes(MEMORY)} (+ {megabytes(BESIDE_BYTES)}), nothing published",
        holds=holds,
    )
