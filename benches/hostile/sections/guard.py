"""A canary beside one hostile caller and three honest ones: a good one stays, bad ones go."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import pathlib
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

import bodies
import gauges
import machine
from report import Figure, progress
from server import MODEL, Place, Server

HONEST = ("first", "second", "third")
PERCENT, USERS, CHOSEN = 50, 64, 12
# Honest requests a second of each caller. The guard wants 30 of the canary in a window of 10 s.
RATE = 6
LOADS, GOES = 300, 240
MINUTE = 60
# What a version fails at that was damaged before it was published: a word that no probe has, and how many of ten texts have it.
WORD, WITH_WORD = "zebra", 3
ROW = 384 * 4


def run(place: Place, minutes: float) -> Iterator[Figure]:
    with place.serving() as server:
        imported(place)
        yield good_stays(server, minutes)
    with place.serving() as server:
        imported(place, "--pooling", "cls")
        rewrite_manifest(place, pretends_same_space)
        yield bad_goes(server, "a canary with wrong pooling (cls)")
    with place.serving() as server:
        imported(place)
        spoil_word(place)
        yield bad_goes(server, f"a canary that gives no vector of {WITH_WORD} in 10 texts", some_with_word)


def imported(place: Place, *flags: str) -> None:
    """Makes version 2 from the same weights."""
    place.command("import", machine.WEIGHTS, "--models", place.models, "--name", MODEL, "--reason", "hostile", *flags)


def files(place: Place, version: int) -> pathlib.Path:
    return place.models / MODEL / "versions" / str(version)


def rewrite_manifest(place: Place, change: Callable[[str, str], str]) -> None:
    """Changes the manifest of version 2, which `change` gets after that of version 1, and seals it anew: as one who may write the
    repository could. No command does it: an import and a rollout compare the vectors first."""
    first, second = (files(place, version) / "manifest.toml" for version in (1, 2))
    text = change(first.read_text(), second.read_text().split("\n", 1)[1])
    second.write_text(f'sha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n{text}')


def pretends_same_space(first: str, second: str) -> str:
    space = next(line for line in first.splitlines() if line.startswith("space = "))
    return "".join(f"{space if line.startswith('space = ') else line}\n" for line in second.splitlines())


def spoil_word(place: Place) -> None:
    """Makes numbers of version 2 that belong to one word NaN."""
    with open(machine.WEIGHTS / "model.safetensors", "rb") as weights:
        (length,) = struct.unpack("<Q", weights.read(8))
        table = json.loads(weights.read(length))["embeddings.word_embeddings.weight"]
        vocabulary = json.loads((machine.WEIGHTS / "tokenizer.json").read_text())["model"]["vocab"]
        weights.seek(8 + length + table["data_offsets"][0] + vocabulary[WORD] * ROW)
        row = weights.read(ROW)
    file = files(place, 2) / "model.onnx.data"
    right = file.read_bytes()
    if right.count(row) != 1:
        raise RuntimeError(f"the vector of `{WORD}` is {right.count(row)} times in {file.name}")
    spoiled = right.replace(row, struct.pack("<f", float("nan")) * (ROW // 4))
    file.write_bytes(spoiled)
    before, after = (hashlib.sha256(one).hexdigest() for one in (right, spoiled))
    rewrite_manifest(place, lambda _, second: second.replace(before, after))


def begun(server: Server) -> None:
    """Puts version 2 on trial."""
    line = ["rollout", f"{MODEL}@2", "--canary-percent", PERCENT, "--server", f"http://{server.address}", "--reason", "hostile"]
    server.place.command(*line, SEXTANT_API_KEY=server.keys["operator"])
    server.until("the canary answers", lambda: server.page().total("sextant_version_role", version="2", role="canary") > 0, LOADS)


def newest(server: Server) -> dict:
    """The last document of the rollout log."""
    files = sorted((server.models / MODEL / "rollouts").glob("*.json"))
    return json.loads(files[-1].read_text())


def is_on_trial(server: Server) -> bool:
    return newest(server)["change"]["action"] != "rollback"


def versions(server: Server, users: Iterator[str], key: str) -> dict[str, str]:
    """Which version answers each user."""
    found = {}
    for user in users:
        answer = server.ask("POST", "/v1/embeddings", bodies.body("/v1/embeddings", f"a question of {user}", user=user), key=key)
        found[user] = answer.headers.get("x-sextant-version", str(answer.status))
    return found


@contextlib.contextmanager
def honest_traffic(server: Server, made: Callable[[int], list[str]]) -> Iterator[list[gauges.Flood]]:
    """What is `made` for each of three callers, a few each second, the users of each without a name."""
    with contextlib.ExitStack() as callers:
        yield [
            callers.enter_context(gauges.flooding(server, recipe=given(made(number)), path="/v1/embeddings", key=key, connections=64, rate=RATE))
            for number, key in enumerate(HONEST)
        ]


def short_texts(number: int) -> list[str]:
    return bodies.texts(64, 8, 200 + number)


def some_with_word(number: int) -> list[str]:
    return [f"{text} {WORD}" if place % 10 < WITH_WORD else text for place, text in enumerate(short_texts(number))]


def given(inputs: list, users: list[str] = ()) -> dict:
    """A request of each input, of each user in turn."""
    own = ({"user": user} for user in itertools.cycle(users)) if users else itertools.repeat({})
    made = [bodies.body("/v1/embeddings", one, **more).decode() for one, more in zip(inputs, own)]
    return {"kind": "given", "given": made}


def hostile_plans(server: Server) -> list[dict]:
    """All that one caller can do at once. It learned by asking which users the canary answers."""
    answered = versions(server, (f"user {number}" for number in range(USERS)), "greedy")
    chosen = [user for user, version in answered.items() if version == f"{MODEL}@2"][:CHOSEN]
    progress(f"guard: of {USERS} users {Counter(answered.values())}")
    drawn = random.Random(1)
    long = bodies.texts(64, 200, 500)
    odd = ["".join(chr(drawn.randrange(0x21, 0x2FFF)) for _ in range(200)) for _ in range(CHOSEN)]
    orders = [[101, *(drawn.randrange(1000, 30_000) for _ in range(60)), 102] for _ in range(CHOSEN)]

    def to_chosen(inputs: list) -> dict:
        return given(inputs, chosen or ["a"])

    common = {"path": "/v1/embeddings", "key": "greedy", "pause": 0.1}
    return [
        common | {"recipe": to_chosen([long] * CHOSEN), "connections": 8, "give_up": 0.2},
        common | {"recipe": to_chosen(bodies.texts(CHOSEN, 100, 501)), "connections": 8, "give_up": 0.01},
        common | {"recipe": to_chosen([long[:8]] * CHOSEN), "connections": 4, "headers": {"x-request-timeout-ms": "20"}},
        common | {"recipe": to_chosen([[ids] for ids in orders]), "connections": 4},
        common | {"recipe": to_chosen(odd), "connections": 4},
        common | {"recipe": to_chosen([long] * CHOSEN), "connections": 2},
        # Inputs that fail.
        common | {"recipe": to_chosen([[[7, 7, 7]]] * CHOSEN), "connections": 2},
    ]


def good_stays(server: Server, minutes: float) -> Figure:
    begun(server)
    plans = hostile_plans(server)
    with honest_traffic(server, short_texts) as honest, contextlib.ExitStack() as attackers:
        floods = [attackers.enter_context(gauges.flooding(server, **plan)) for plan in plans]
        end, began = time.monotonic() + minutes * MINUTE, time.monotonic()
        while time.monotonic() < end and is_on_trial(server):
            time.sleep(1)
        seconds = time.monotonic() - began
        done = gauges.told(gauges.summed([flood.done() for flood in floods]))
        answers = gauges.told(gauges.summed([flood.done() for flood in honest]))
    shown = server.ask("GET", f"/admin/v1/models/{MODEL}", key="operator").json()
    seen = shown["serving"].get("trial", {}).get("seen", {})
    answered = Counter(versions(server, (f"honest {number}" for number in range(USERS)), "honest").values())
    told = {name: seen.get(name) for name in ("windows", "canary_requests", "canary_failures", "doubt")}
    return Figure(
        f"one caller hangs up on an identical canary, sends odd and expensive inputs and token arrays, to users that the canary answers, "
        f"for {minutes:g} minutes beside three honest callers",
        during=f"{'there' if is_on_trial(server) else newest(server)['reason']} after {seconds:.0f} s (hostile: {done}; honest: {answers})",
        after=f"answers by version {dict(answered)}; seen {json.dumps(told)}",
        bound="the canary is there and answers some",
        holds=is_on_trial(server) and answered[f"{MODEL}@2"] > 0,
    )


def bad_goes(server: Server, what: str, made: Callable[[int], list[str]] = short_texts) -> Figure:
    try:
        begun(server)
    except RuntimeError as error:
        refused = "refused before it answered: " + " ".join(str(error).split())
        return Figure(what, during=refused, bound="refused or taken back", holds=True)
    with honest_traffic(server, made):
        seconds = server.until("it is taken back", lambda: not is_on_trial(server), GOES)
    answered = Counter(versions(server, (f"honest {number}" for number in range(USERS)), "honest").values())
    return Figure(
        f"{what}, three honest callers",
        during=f"taken back after {seconds:.0f} s: {newest(server)['reason']}",
        after=f"answers by version {dict(answered)}",
        bound=f"taken back within {GOES} s",
        holds=f"{MODEL}@2" not in answered,
    )
