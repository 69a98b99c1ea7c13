"""The files of a version that serves are overwritten, cut, replaced and removed: vectors, the process, and the alarm."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator

import bodies
from report import Figure
from server import MODEL, Place, Server

FLAG = "--recheck-interval"
# The files are looked at again at a tenth of a core.
ALARM = 180
TEXTS = bodies.texts(16, 8, 1)


def overwritten(file: pathlib.Path) -> None:
    """In place, by what is as long."""
    with file.open("r+b") as opened:
        opened.write(os.urandom(file.stat().st_size))


def cut(file: pathlib.Path) -> None:
    os.truncate(file, 0)


def replaced(file: pathlib.Path) -> None:
    """By a rename."""
    other = file.with_name("other")
    other.write_bytes(os.urandom(file.stat().st_size))
    other.rename(file)


WAYS: dict[str, Callable[[pathlib.Path], None]] = {
    "overwritten in place": overwritten,
    "cut to nothing": cut,
    "replaced by a rename": replaced,
    "removed": pathlib.Path.unlink,
}


def run(place: Place) -> Iterator[Figure]:
    flags = [FLAG, "1s"] if place.knows("serve", FLAG) else []
    for way, change in WAYS.items():
        with place.serving(*flags) as server:
            yield changed(server, way, change)


def vectors(server: Server) -> list[list[float]]:
    answer = server.ask("POST", "/v1/embeddings", bodies.body("/v1/embeddings", TEXTS))
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.body.decode()}")
    return [item["embedding"] for item in answer.json()["data"]]


def changed(server: Server, way: str, change: Callable[[pathlib.Path], None]) -> Figure:
    before = vectors(server)
    files = [file for file in (server.models / MODEL / "versions/1").iterdir() if file.is_file()]
    for file in files:
        change(file)
    differences = []

    def is_told() -> bool:
        differences.append(largest_difference(before, vectors(server)))
        return server.page().total("sextant_files_changed") > 0

    try:
        told = f"alarm after {server.until('the alarm', is_told, ALARM):.1f} s"
    except (RuntimeError, TimeoutError) as error:
        told = str(error).splitlines()[0]
    if server.is_alive():
        differences.append(largest_difference(before, vectors(server)))
    largest = max(differences, default=float("inf"))
    return Figure(
        f"all {len(files)} files of the version that serves are {way}",
        during=f"vectors differ by {largest:g}, {told}",
        after="alive" if server.is_alive() else "dead",
        bound="vectors the same, process alive, alarm raised",
        holds=largest == 0 and server.is_alive() and told.startswith("alarm"),
    )


def largest_difference(before: list[list[float]], after: list[list[float]]) -> float:
    return max(abs(a - b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))
