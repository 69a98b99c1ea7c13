"""Floods of HTTP/2 frames over connections that come again when the server has enough of them: `frames.py HOST PORT KIND` goes on until its
input ends, and says how many it sent for each line of it.

A process of its own, since sending must not slow down the one that measures.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests/deploy"))

from hostile import CONTINUATION, END_HEADERS, HEADERS, POST, PREFACE, RESET, SETTINGS, frame  # noqa: E402

DONE: Counter[str] = Counter()
NICE = 10
CANCEL = struct.pack(">I", 8)
# Frames that are sent at once, and the largest number of a stream that a connection of them has.
TOGETHER, LAST = 100, 1 << 20
# A header of 256 bytes.
PIECE = frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x80\x7f" + b"b" * 255)


def resets() -> Iterator[bytes]:
    """Streams that are given up as soon as they are opened."""
    yield b""
    for first in range(1, LAST, 2 * TOGETHER):
        numbers = range(first, first + 2 * TOGETHER, 2)
        yield b"".join(frame(HEADERS, END_HEADERS, number, POST) + frame(RESET, 0, number, CANCEL) for number in numbers)


def continuations() -> Iterator[bytes]:
    """A head that never ends."""
    yield frame(HEADERS, 0, 1, POST)
    yield from itertools.repeat(PIECE * TOGETHER)


KINDS = {"resets": resets, "continuations": continuations}


def flood(address: tuple[str, int], kind: str) -> None:
    # Made once: what it costs to make them is not to keep the server from its work.
    pieces = list(itertools.islice(KINDS[kind](), 1000))
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + pieces[0])
            DONE["connections"] += 1
            for piece in pieces[1:]:
                connection.sendall(piece)
                DONE["frames"] += TOGETHER


def told() -> None:
    while sys.stdin.readline():
        print(json.dumps(dict(DONE)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    os.nice(NICE)
    host, port, kind = sys.argv[1:]
    threading.Thread(target=told, daemon=True).start()
    flood((host, int(port)), kind)
