"""A canary beside one hostile caller and three honest ones: a good one stays, a bad one goes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator

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


def run(place: Place, minutes: float) -> Iterator[Figure]:
    with place.serving() as server:
        imported(place)
        yield good_stays(server, minutes)
    with place.serving() as server:
        imported(place, "--pooling", "cls")
        pretend_same_space(place)
        yield bad_goes(server)


def imported(place: Place, *flags: str) -> None:
    """Makes version 2 from the same weights."""
    place.command("import", machine.WEIGHTS, "--models", place.models, "--name", MODEL, "--reason", "hostile", *flags)


def pretend_same_space(place: Place) -> None:
    """Writes the space of version 1 into the manifest of version 2, and seals it anew, as one who may write the repository could. No
    command does it: an import and a rollout compare the vectors first."""
    first, second = (place.models / MODEL / "versions" / number / "manifest.toml" for number in ("1", "2"))
    space = next(line for line in first.read_text().splitlines() if line.startswith("space = "))
    fields = second.read_text().split("\n", 1)[1].splitlines()
    text = "\n".join(space if line.startswith("space = ") else line for line in fields) + "\n"
    second.write_text(f'sha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n{text}')


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
def honest_traffic(server: Server) -> Iterator[list[gauges.Flood]]:
    """Short texts of three callers, a few each second, the users of each without a name."""
    with contextlib.ExitStack() as callers:
        yield [
            callers.enter_context(gauges.flooding(server, recipe=own(number), path="/v1/embeddings", key=key, connections=64, rate=RATE))
            for number, key in enumerate(HONEST)
        ]


def own(number: int) -> dict:
    return {"kind": "distinct", "amount": 1, "words": 8, "first": 200 + 64 * number}


def hostile_plans(server: Server) -> list[dict]:
    """All that one caller can do at once. It learned by asking which users the canary answers."""
    answered = versions(server, (f"user {number}" for number in range(USERS)), "greedy")
    chosen = [user for user, version in answered.items() if version == f"{MODEL}@2"][:CHOSEN]
    progress(f"guard: of {USERS} users {Counter(answered.values())}")
    drawn = random.Random(1)
    long = bodies.texts(64, 200, 500)
    odd = ["".join(chr(drawn.randrange(0x21, 0x2FFF)) for _ in range(200)) for _ in range(CHOSEN)]
    orders = [[101, *(drawn.randrange(1000, 30_000) for _ in range(60)), 102] for _ in range(CHOSEN)]

    def given(inputs) -> dict:
        made = [bodies.body("/v1/embeddings", one, user=user).decode() for one, user in zip(inputs, itertools.cycle(chosen or ["a"]))]
        return {"kind": "given", "given": made}

    common = {"path": "/v1/embeddings", "key": "greedy", "pause": 0.1}
    return [
        common | {"recipe": given([long] * CHOSEN), "connections": 8, "give_up": 0.2},
        common | {"recipe": given(bodies.texts(CHOSEN, 100, 501)), "connections": 8, "give_up": 0.01},
        common | {"recipe": given([long[:8]] * CHOSEN), "connections": 4, "headers": {"x-request-timeout-ms": "20"}},
        common | {"recipe": given([[ids] for ids in orders]), "connections": 4},
        common | {"recipe": given(odd), "connections": 4},
        common | {"recipe": given([long] * CHOSEN), "connections": 2},
        # Inputs that fail.
        common | {"recipe": given([[[7, 7, 7]]] * CHOSEN), "connections": 2},
    ]


def good_stays(server: Server, minutes: float) -> Figure:
    begun(server)
    plans = hostile_plans(server)
    with honest_traffic(server) as honest, contextlib.ExitStack() as attackers:
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


def bad_goes(server: Server) -> Figure:
    try:
        begun(server)
    except RuntimeError as error:
        refused = "refused before it answered: " + " ".join(str(error).split())
        return Figure("a canary with wrong pooling (cls)", during=refused, bound="refused or taken back", holds=True)
    with honest_traffic(server):
        seconds = server.until("it is taken back", lambda: not is_on_trial(server), GOES)
    answered = Counter(versions(server, (f"honest {number}" for number in range(USERS)), "honest").values())
    return Figure(
        "a canary with wrong pooling (cls), three honest callers",
        during=f"taken back after {seconds:.0f} s: {newest(server)['reason']}",
        after=f"answers by version {dict(answered)}",
        bound=f"taken back within {GOES} s",
        holds=f"{MODEL}@2" not in answered,
    )
