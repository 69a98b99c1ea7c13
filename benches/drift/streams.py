"""The texts, the splits and the streams: the same for everything that is measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REFERENCE = 15_000
# Unchanged vectors before a change; a run that alarms among them is a false alarm and gives no delay.
BEFORE = 500
# Drawn for every run, so that a slow peer finds an end and a quick one reads the same beginning.
AFTER = 6_000


@dataclass(frozen=True)
class Row:
    """A kind of stream. `share` of its sessions are outside after the change; `session` queries of one intent follow each other."""

    name: str
    number: int
    outside: str
    share: float
    session: int = 1


DELAYS = [
    Row("10 % out-of-scope", 0, "oos", 0.1),
    Row("20 % out-of-scope", 1, "oos", 0.2),
    Row("10 % German", 2, "german", 0.1),
    Row("sessions of 4, 10 % out-of-scope", 3, "oos", 0.1, 4),
]
NULLS = [
    Row("independent", 4, "oos", 0.0),
    Row("sessions of 4", 5, "oos", 0.0, 4),
    Row("sessions of 16", 6, "oos", 0.0, 16),
]


class Texts:
    """All texts by number: CLINC150's in-scope ones, its out-of-scope ones, German ones."""

    def __init__(self, data: Path, german: Path) -> None:
        clinc = json.loads((data / "clinc150.json").read_text("utf-8"))
        inside = [pair for part in ("train", "val", "test") for pair in clinc[part]]
        oos = [text for part in ("oos_train", "oos_val", "oos_test") for text, _ in clinc[part]]
        foreign = german.read_text("utf-8").split("\n")[:-1]
        self.texts = [text for text, _ in inside] + oos + foreign
        self.inside = len(inside)
        self.intents = np.unique([intent for _, intent in inside], return_inverse=True)[1]
        self.outside = {
            "oos": np.arange(self.inside, self.inside + len(oos)),
            "german": np.arange(self.inside + len(oos), len(self.texts)),
        }


@dataclass(frozen=True)
class Stream:
    """Numbers of texts in order; `[sessions, queries of a session]`."""

    items: np.ndarray

    def every(self) -> np.ndarray:
        """All queries."""
        return self.items.ravel()

    def counted(self) -> np.ndarray:
        """One of each session."""
        return self.items[:, 0]


class Split:
    """A random half of the in-scope texts to refer to and one to draw streams from."""

    def __init__(self, texts: Texts, number: int) -> None:
        self.texts, self.number = texts, number
        order = np.random.default_rng([20, number]).permutation(texts.inside)
        self.reference = order[:REFERENCE]
        # By intent, so that the queries of one lie beside each other.
        pool = order[REFERENCE:]
        self.pool = pool[np.argsort(texts.intents[pool], kind="stable")]
        intents = texts.intents[self.pool]
        self._first = np.searchsorted(intents, np.arange(intents.max() + 2))

    def stream(self, row: Row, run: int, before: int, after: int) -> Stream:
        """A run: `before` unchanged sessions and `after` changed ones, drawn with replacement."""
        random = np.random.default_rng([21, self.number, row.number, run, before])
        sessions, shape = before + after, (before + after, row.session)
        # A session has the intent of a random query: with sessions of one this is a draw from the pool.
        intent = self.texts.intents[self.pool[random.integers(len(self.pool), size=sessions)]]
        first, end = self._first[intent][:, None], self._first[intent + 1][:, None]
        items = self.pool[first + (random.random(shape) * (end - first)).astype(int)]
        outside = self.texts.outside[row.outside]
        changed = random.random(sessions) < row.share
        changed[:before] = False
        drawn = outside[random.integers(len(outside), size=shape)]
        return Stream(np.where(changed[:, None], drawn, items))

    def reference_in_sessions(self, size: int) -> np.ndarray:
        """The reference once, reordered into sessions of `size` queries of one intent, as its traffic would come."""
        random = np.random.default_rng([22, self.number, size])
        shuffled = random.permutation(self.reference)
        by_intent = shuffled[np.argsort(self.texts.intents[shuffled], kind="stable")]
        intents = self.texts.intents[by_intent]
        groups = []
        for intent in np.unique(intents):
            alike = by_intent[intents == intent]
            groups += [alike[begin : begin + size] for begin in range(0, len(alike), size)]
        return np.concatenate([groups[index] for index in random.permutation(len(groups))])

    def sample(self, count: int, purpose: int) -> np.ndarray:
        """`count` texts of the reference."""
        return np.random.default_rng([23, self.number, purpose]).choice(self.reference, count, replace=False)
