"""How much is measured, and the progress of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

_BEGAN = time.monotonic()


@dataclass(frozen=True)
class Settings:
    """Numbers of runs are for each split."""

    splits: int = 5
    runs: int = 60
    # Many alarm before the change where the expected run time is no longer than what comes before it.
    curve_runs: int = 80
    # Fewer: a vector takes alibi-detect a millisecond.
    peer_runs: int = 28
    peer_nulls: int = 3
    batches: int = 20
    nulls: int = 20
    null_length: int = 20_000
    scored_every: int = 1


QUICK = Settings(
    splits=1,
    runs=6,
    curve_runs=4,
    peer_runs=2,
    peer_nulls=1,
    batches=2,
    nulls=3,
    null_length=4_000,
    scored_every=10,
)


def progress(message: str) -> None:
    """Says what begins, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGAN:6.0f} s] {message}", flush=True)
