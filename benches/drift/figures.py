"""Means, rates and run times with their 95 % intervals. An interval is (value, low, high, number of runs)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Figure = tuple[float, float, float, int]


def mean(values: Sequence[float]) -> Figure | None:
    """Mean and 1.96 standard errors; nothing of fewer than two runs."""
    if len(values) < 2:
        return None
    middle, error = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return middle, middle - error, middle + error, len(values)


def rate(hits: int, count: int) -> Figure:
    """A share with Wilson's interval: the usual one has no width at 0 and at 1."""
    share, z2 = hits / count, 1.96**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    error = 1.96 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return share, max(0.0, middle - error), min(1.0, middle + error), count


def run_time(alarms: Sequence[int], length: int) -> Figure:
    """Vectors per alarm in streams of `length` in which a test begins anew after each alarm.

    The mean of the finished runs alone would be too small, for a stream cuts off its long ones; vectors over alarms is not. The
    interval is that of the mean number of alarms of a stream, turned over. With no alarm the lower end is what three would give.
    """
    total = sum(alarms)
    if total == 0:
        return math.inf, length * len(alarms) / 3, math.inf, 0
    each = float(np.mean(alarms))
    # Of one stream alone nothing is known but that counts of rare events have their mean as variance.
    variance = float(np.var(alarms, ddof=1)) if len(alarms) > 1 else each
    error = 1.96 * math.sqrt(variance / len(alarms))
    high = length / (each - error) if each > error else math.inf
    return length / each, length / (each + error), high, total


def delays(alarms: Sequence[int | None], before: int) -> dict:
    """Of first alarms (None: none came) the delay after `before` vectors, given that none came earlier."""
    early = sum(alarm is not None and alarm <= before for alarm in alarms)
    late = [alarm - before for alarm in alarms if alarm is not None and alarm > before]
    missing = sum(alarm is None for alarm in alarms)
    return {"delay": mean(late), "early": early, "missing": missing, "runs": len(alarms)}


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of pairs in which the outside one has the higher score, ties by half."""
    order = np.sort(inside)
    below = np.searchsorted(order, outside, "left") + np.searchsorted(order, outside, "right")
    return float(below.mean() / 2 / len(inside))
