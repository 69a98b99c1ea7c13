"""Floods of HTTP/2 frames over connections that come again when the server has enough of them: `frames.py HOST PORT KIND` goes on until its
input ends, and says how many it sent for each line of it.

A process of its own, since sending must not slow down the one that measures.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import socket
import sys

import account
from account import DONE

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests/deploy"))

from hostile import HEADERS, MORE_HEAD, POST, PREFACE, SETTINGS, cancelled, frame, streams  # noqa: E402

# Frames that are sent at once, and how often a connection sends so many.
TOGETHER, TIMES = 100, 1000
# What a connection begins with, and what it sends then: streams that are given up as soon as they are opened, or a head that never ends.
KINDS = {
    "resets": (b"", streams(TOGETHER, cancelled)),
    "continuations": (frame(HEADERS, 0, 1, POST), itertools.repeat(MORE_HEAD * TOGETHER)),
}


def flood(address: tuple[str, int], kind: str) -> None:
    start, moves = KINDS[kind]
    # Made once: what it costs to make them is not to keep the server from its work.
    pieces = list(itertools.islice(moves, TIMES))
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + start)
            DONE["connections"] += 1
            for piece in pieces:
                connection.sendall(piece)
                DONE["frames"] += TOGETHER


if __name__ == "__main__":
    host, port, kind = sys.argv[1:]
    account.begin()
    flood((host, int(port)), kind)
