"""The peers on the same streams: alibi-detect's online MMD and Evidently's batch methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

import figures
import streams
from settings import Settings, progress

# As alibi-detect's documentation uses them; more reference vectors take memory by their square.
STORED, WINDOW, BOOTSTRAPS = 1_000, 50, 6_000
# Null streams in sessions alarm within a few vectors, so little of them tells enough.
SESSION_LENGTH = 2_000


def _detector(reference: np.ndarray, run_time: int, seed: int):
    import torch
    from alibi_detect.cd import MMDDriftOnline

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return MMDDriftOnline(
        reference,
        ert=run_time,
        window_size=WINDOW,
        n_bootstraps=BOOTSTRAPS,
        backend="pytorch",
        device="cpu",
        verbose=False,
    )


def _first_alarm(detector, vectors: np.ndarray) -> int | None:
    detector.reset_state()
    for index, vector in enumerate(vectors, 1):
        if detector.predict(vector)["data"]["is_drift"]:
            return index
    return None


def _alarms(detector, vectors: np.ndarray) -> int:
    """How many alarms, the detector beginning anew after each."""
    detector.reset_state()
    count = 0
    for vector in vectors:
        if detector.predict(vector)["data"]["is_drift"]:
            count += 1
            detector.reset_state()
    return count


def alibi(texts: streams.Texts, vectors: np.ndarray, settings: Settings, keep: Callable[[dict], None]) -> None:
    """Delays and run times of MMDDriftOnline at an expected run time of 2,000. Kept after every split."""
    warnings.filterwarnings("ignore")
    firsts: dict[str, dict[str, list]] = {}
    nulls: dict[str, list[int]] = {}
    lengths: dict[str, int] = {}
    for number in range(settings.splits):
        split = streams.Split(texts, number)
        progress(f"alibi: split {number}: bootstrap")
        detector = _detector(vectors[split.sample(STORED, 0)], 2_000, number)
        for row in streams.DELAYS:
            for start, before in (("warm", streams.BEFORE), ("cold", 0)):
                for which in ("every", "counted") if row.session > 1 else ("counted",):
                    progress(f"alibi: split {number}: {row.name}, {start}, {which}")
                    found = firsts.setdefault(f"{row.number} {which}", {}).setdefault(start, [])
                    for run in range(settings.peer_runs):
                        stream = split.stream(row, run, before, streams.AFTER)
                        found.append(_first_alarm(detector, vectors[getattr(stream, which)()]))
        for row in streams.NULLS:
            progress(f"alibi: split {number}: unchanged, {row.name}")
            length = settings.null_length if row.session == 1 else SESSION_LENGTH
            lengths[str(row.number)] = length
            for run in range(settings.peer_nulls):
                stream = split.stream(row, run, settings.null_length, 0)
                found = nulls.setdefault(str(row.number), [])
                found.append(_alarms(detector, vectors[stream.every()[:length]]))
        keep({"firsts": firsts, "nulls": nulls, "lengths": lengths})


def alibi_short(texts: streams.Texts, vectors: np.ndarray, settings: Settings, keep: Callable[[dict], None]) -> None:
    """Delays at an expected run time of 500, for the plot."""
    warnings.filterwarnings("ignore")
    firsts: dict[str, list] = {}
    for number in range(settings.splits):
        split = streams.Split(texts, number)
        progress(f"alibi at 500: split {number}")
        detector = _detector(vectors[split.sample(STORED, 0)], 500, number)
        for row in streams.DELAYS[:2]:
            for run in range(settings.peer_runs):
                stream = split.stream(row, run, streams.BEFORE, streams.AFTER)
                found = firsts.setdefault(str(row.number), [])
                found.append(_first_alarm(detector, vectors[stream.every()]))
        keep({"firsts": firsts})


def evidently(texts: streams.Texts, vectors: np.ndarray, settings: Settings, keep: Callable[[dict], None]) -> None:
    """How often each default method calls a batch drifted."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, psi_stat_test
    from evidently.legacy.core import ColumnType
    from evidently.legacy.metrics.data_drift import embedding_drift_methods as methods
    from sklearn.cluster import KMeans

    warnings.filterwarnings("ignore")
    hits: dict[str, dict[str, list[int]]] = {}

    def count(method: str, cell: str, drifted: bool) -> None:
        hits.setdefault(method, {}).setdefault(cell, []).append(int(drifted))

    for number in range(settings.splits):
        split = streams.Split(texts, number)
        progress(f"evidently: split {number}: k-means")
        clusters = KMeans(64, n_init=1, random_state=number).fit(vectors[split.reference])

        def named(ids: np.ndarray) -> pd.Series:
            return pd.Series(ids.astype(str))

        known = named(clusters.labels_)
        stored = vectors[split.sample(STORED, 0)]
        rows = [streams.NULLS[0], *streams.DELAYS[:2]]
        for row, size, batch in [(r, s, b) for s in (100, 500) for r in rows for b in range(settings.batches)]:
            if batch == 0:
                progress(f"evidently: split {number}: {row.name}, batches of {size}")
            stream = split.stream(row, batch, 0, size)
            current, cell = vectors[stream.every()], f"{size} {row.number}"
            for name in ("model", "mmd", "distance", "ratio"):
                # `model` adds a column to what it is given: fresh frames each time. It draws by numpy's global state.
                np.random.seed(batch)
                score = getattr(methods, name)()(pd.DataFrame(current), pd.DataFrame(stored))
                count(name, cell, bool(score[1]))
            ids = named(clusters.predict(current))
            for name, test in (("PSI", psi_stat_test), ("Jensen-Shannon", jensenshannon_stat_test)):
                result = test(known, ids, feature_type=ColumnType.Categorical, threshold=None)
                count(name, cell, bool(result.drifted))
        keep({"hits": hits})


def nearest(vectors: np.ndarray, stored: np.ndarray, queries: np.ndarray, counts: list[int]) -> dict[int, np.ndarray]:
    """Mean cosine distance of each query to its k nearest stored vectors, for each k."""
    similar = -np.sort(-(vectors[queries] @ vectors[stored].T), axis=1)[:, : max(counts)]
    return {k: 1 - similar[:, :k].mean(axis=1) for k in counts}
