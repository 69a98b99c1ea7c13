"""Three servers of the chart on one repository, with real weights, and clients that ask them all the time."""

from __future__ import annotations

import http.client
import itertools
import json
import pathlib
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from chart import merged, render
from machine import BINARY, MODELS, WEIGHTS, run
from replica import Replica

# Of a machine with two cores for all of them: nothing is measured at the start, one thread each.
SMALL = {
    "replicaCount": 3,
    "repository": {"volume": {"accessModes": ["ReadWriteMany"]}},
    "config": {"sessions": 1, "threads": 1, "lone_threads": 0, "max_batch_tokens": 1024, "log": "warn"},
}
_OFFICE = (
    ["my", "our", "the customer's", "a colleague's", "the new", "an old", "her", "the second"],
    ["laptop", "password", "invoice", "parcel", "subscription", "account", "phone", "order", "printer", "contract", "router", "refund"],
    ["does not work", "was lost", "arrived late", "must be renewed", "needs an update", "was charged twice", "has expired"],
    ["since yesterday", "after the update", "this morning", "for a week", "again", "at the office", "on my account", "abroad"],
)
_KITCHEN = (
    ["simmer", "roast", "chop", "whisk", "marinate"],
    ["the onions", "a whole chicken", "fresh basil", "the egg whites", "two aubergines", "the dough", "ripe tomatoes"],
    ["with olive oil", "in salted water", "over low heat", "until golden", "with lemon juice"],
    ["for ten minutes", "before serving", "and let it rest", "as my grandmother did", "in a deep pan"],
)


def texts(of: tuple[list[str], ...], seed: int) -> list[str]:
    """All sentences of these parts, shuffled: neighbours in a stream of which each resembles the last tell little."""
    found = [" ".join(parts) for parts in itertools.product(*of)]
    random.Random(seed).shuffle(found)
    return found


# What a reference is made of must not come again: texts that repeat it word for word are a change of the traffic, too.
FITTED, INTENDED = texts(_OFFICE, 1)[:3500], texts(_OFFICE, 1)[3500:]
STRANGE = texts(_KITCHEN, 2)


@dataclass
class Answer:
    """To one request: when it came, and which version gave it, or what went wrong."""

    at: float
    version: str | None
    failure: str | None


class Load:
    """Clients that ask one text at a time over connections that they keep, `pause` seconds apart, until `stop`."""

    def __init__(self, addresses: list[str], pause: float) -> None:
        self.texts, self.answers = INTENDED, []
        self.ended = threading.Event()
        self.clients = [threading.Thread(target=self._ask, args=(address, n, pause)) for n, address in enumerate(addresses)]
        for client in self.clients:
            client.start()

    def _ask(self, address: str, number: int, pause: float) -> None:
        connection = http.client.HTTPConnection(address, timeout=20)
        for place in itertools.count(number * 997):
            if self.ended.wait(pause):
                break
            body = json.dumps({"model": "minilm", "input": self.texts[place % len(self.texts)]})
            try:
                connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                failure = None if answer.status == 200 else f"{answer.status}: {text[:300]!r}"
                self.answers.append(Answer(time.time(), answer.headers["x-sextant-version"], failure))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(Answer(time.time(), None, repr(error)))
                connection.close()
        connection.close()

    def failures(self) -> list[str]:
        return [answer.failure for answer in list(self.answers) if answer.failure]

    def stop(self) -> None:
        self.ended.set()
        for client in self.clients:
            client.join()


class Fleet:
    """Three replicas; two versions of `minilm`, of which the first serves and has a reference of its traffic."""

    def __init__(self, folder: pathlib.Path, values: dict | None = None) -> None:
        self.models = folder / "models"
        shutil.copytree(MODELS / "minilm", self.models / "minilm")
        at = ["--models", self.models]
        self.told("import", WEIGHTS, *at, "--name", "minilm", "--precision", "int8", "--claim-space-of", 1, "--licence", "Apache-2.0")
        fitted = folder / "fitted.txt"
        fitted.write_text("\n".join(FITTED))
        self.told("drift", "fit", "minilm@1", *at, "--input", fitted)
        documents = render(merged(SMALL, values or {}))
        self.replicas = [Replica(documents, folder / f"pod-{number}", self.models) for number in range(3)]
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            replica.wait()

    @staticmethod
    def told(*command: object) -> str:
        """What a command prints."""
        done = run([BINARY, *command])
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout

    def change(self, *command: object) -> None:
        """Changes a role through the first replica; it is served there when this is back."""
        self.told(*command, "--server", f"http://{self.replicas[0].admin}", "--reason", "a test of the fleet")

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()


def until(what: str, is_so: Callable[[], object], seconds: float = 60) -> None:
    """Waits until `is_so()`."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not after {seconds} s: {what}"
        time.sleep(0.05)
