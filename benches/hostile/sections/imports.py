"""Checkpoints that never end or grow without bound when they are imported: seconds and memory until the import gives up.

Needs the flags that bound an import; a binary without them is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

from report import Figure, progress
from server import Place

FLAGS = ("--import-timeout", "--import-memory")


def run(place: Place) -> Iterator[Figure]:
    if missing := [flag for flag in FLAGS if not place.knows("import", flag)]:
        progress(f"imports: passed over, since `sextant import` has no {', '.join(missing)}")
        return
    yield from ()
