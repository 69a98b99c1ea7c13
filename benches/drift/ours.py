"""Sextant on the streams: `drift fit`, then `drift replay` over all streams of a split in one call, which embeds each text once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import figures
import peers
import server
import streams
from settings import Settings, progress

TESTS = ("outside", "near", "shift")
RUN_TIME = 2_000
RUN_TIMES = (500, 2_000, 10_000, 100_000, 1_000_000, 100_000_000)
# Of a run's 6,000 changed vectors as many as are ever needed; one that finds no alarm in them is reported.
AFTER = 1_500
CURVE_AFTER = {0: 900, 1: 500}
# A session stream is that much longer than what counts of it.
SESSION_NULL = 10_000
SIZES = (4, 16)
STORED = 7_000
NEIGHBOURS = [1, 5, 10]

Keep = Callable[[dict], None]


class Bench:
    """One split at a time, in a folder of its own."""

    def __init__(self, sextant: server.Sextant, texts: streams.Texts, settings: Settings, work: Path) -> None:
        self.sextant, self.texts, self.settings, self.work = sextant, texts, settings, work

    def _models(self, number: int) -> Path:
        return self.work / f"models-{number}"

    def _write(self, path: Path, items: Iterable[int], session: int = 0) -> Path:
        """Texts, a line each; with the number of their session where sessions have that many."""
        lines = (self.texts.texts[item] for item in items)
        if session:
            each = enumerate(lines)
            lines = (json.dumps({"text": text, "session": index // session}) for index, text in each)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    def fit(self, keep: Keep) -> None:
        """A reference of each split, stored in a copy of the repository; and two of the same texts in the order of sessions."""
        reports = {}
        for number in range(self.settings.splits):
            progress(f"fit: split {number}")
            split = streams.Split(self.texts, number)
            sextant = self.sextant.copy_models(self._models(number))
            path = self._write(self.work / f"reference-{number}.txt", split.reference)
            reports[str(number)] = sextant.fit(path)
            for size in SIZES:
                progress(f"fit: split {number}, sessions of {size}")
                path = self.work / f"reference-{number}-{size}.jsonl"
                texts = (self.texts.texts[item] for item in split.reference_in_sessions(size))
                path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
                reports[f"{number} {size}"] = sextant.fit(path, path.with_suffix(".bin"))
        keep(reports)

    def replay(self, keep: Keep) -> None:
        """Delays and run times at an expected run time of 2,000."""
        firsts: dict[str, dict[str, list]] = {}
        nulls: dict[str, dict[str, list[int]]] = {}
        lengths: dict[str, int] = {}
        for number in range(self.settings.splits):
            folder = self._folder("streams")
            files = self._delay_files(number, folder) + self._null_files(number, folder)
            progress(f"replay: split {number}: {len(files)} streams")
            sextant = server.Sextant(self.sextant.binary, self._models(number))
            found = sextant.replay(files, RUN_TIME)
            for name, replay in sorted(found.items()):
                row, kind, _ = name.split("-")
                if kind in ("warm", "cold"):
                    firsts.setdefault(row, {}).setdefault(kind, []).append(_first(replay))
                else:
                    _count(nulls, lengths, f"{row} {kind}", replay)
            for size in SIZES:
                progress(f"replay: split {number}: sessions of {size}, reference in sessions")
                plain = [file for file in files if file.name.split("-")[:2] == [str(_null_of(size)), "plain"]]
                reference = self.work / f"reference-{number}-{size}.bin"
                for replay in sextant.replay(plain, RUN_TIME, reference).values():
                    _count(nulls, lengths, f"{_null_of(size)} design", replay)
            keep({"firsts": firsts, "nulls": nulls, "lengths": lengths})

    def _delay_files(self, number: int, folder: Path) -> list[Path]:
        split, files = streams.Split(self.texts, number), []
        for row in streams.DELAYS:
            for kind, before in (("warm", streams.BEFORE), ("cold", 0)):
                for run in range(self.settings.runs):
                    items = split.stream(row, run, before, streams.AFTER).items[: before + AFTER]
                    session = row.session if row.session > 1 else 0
                    path = folder / f"{row.number}-{kind}-{run}"
                    files.append(self._write(path, items.ravel(), session))
        return files

    def _null_files(self, number: int, folder: Path) -> list[Path]:
        split, files = streams.Split(self.texts, number), []
        length = self.settings.null_length
        for row in streams.NULLS:
            for run in range(self.settings.nulls):
                stream = split.stream(row, run, length, 0)
                files.append(self._write(folder / f"{row.number}-plain-{run}", stream.every()[:length]))
                if row.session > 1:
                    items = stream.items[: min(length, SESSION_NULL)].ravel()
                    files.append(self._write(folder / f"{row.number}-keyed-{run}", items, row.session))
        return files

    def curve(self, vectors: np.ndarray, keep: Keep) -> None:
        """Delays at other expected run times. The streams are vectors here: no call then needs to embed the texts again."""
        progress("curve: writing vectors as text")
        digits = [json.dumps({"vector": [float(f"{value:.6g}") for value in row]}) for row in vectors]
        firsts: dict[str, list] = {}
        for number in range(self.settings.splits):
            folder, split, files = self._folder("vectors"), streams.Split(self.texts, number), []
            for row in streams.DELAYS[:2]:
                for run in range(self.settings.curve_runs):
                    items = split.stream(row, run, streams.BEFORE, streams.AFTER).every()
                    lines = (digits[item] for item in items[: streams.BEFORE + CURVE_AFTER[row.number]])
                    files.append(folder / f"{row.number}-warm-{run}")
                    files[-1].write_text("\n".join(lines) + "\n")
            for run_time in RUN_TIMES:
                progress(f"curve: split {number}: expected run time {run_time}")
                sextant = server.Sextant(self.sextant.binary, self._models(number))
                for name, replay in sorted(sextant.replay(files, run_time).items()):
                    firsts.setdefault(f"{name.split('-')[0]} {run_time}", []).append(_first(replay))
            keep({"firsts": firsts})
            shutil.rmtree(folder)

    def scores(self, vectors: np.ndarray, keep: Keep) -> None:
        """Areas under the curve of the score that the server answers with, and of the distance to stored neighbours."""
        areas: dict[str, list[float]] = {}
        oos = self.texts.outside["oos"]
        for number in range(self.settings.splits):
            progress(f"scores: split {number}")
            split = streams.Split(self.texts, number)
            inside = split.pool[:: self.settings.scored_every]
            asked = np.concatenate([inside, oos])
            found = peers.nearest(vectors, split.sample(STORED, 1), asked, NEIGHBOURS)
            for count, distance in found.items():
                area = figures.auroc(distance[: len(inside)], distance[len(inside) :])
                areas.setdefault(f"nearest {count}", []).append(area)
            sextant = server.Sextant(self.sextant.binary, self._models(number))
            with sextant.serving(self.work / "serve.log") as address:
                texts = [self.texts.texts[item] for item in asked]
                answers = server.items(address, texts, ood=True)
                score = np.array([answer["ood_score"] for answer in answers])
            areas.setdefault("ours", []).append(figures.auroc(score[: len(inside)], score[len(inside) :]))
            keep({"areas": areas})

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def _null_of(size: int) -> int:
    return next(row.number for row in streams.NULLS if row.session == size)


def _first(replay: dict) -> int | None:
    """How many vectors the primary test had seen at its first alarm."""
    return next((alarm["vectors"] for alarm in replay["alarms"] if alarm["test"] == "outside"), None)


def _count(nulls: dict, lengths: dict, key: str, replay: dict) -> None:
    lengths[key] = replay["vectors"]
    for test in TESTS:
        count = sum(alarm["test"] == test for alarm in replay["alarms"])
        nulls.setdefault(key, {}).setdefault(test, []).append(count)
