"""An attacker that sends the same kind of request over many connections: `flood.py HOST PORT` reads a plan from the first line of its input,
goes on until the input ends, and says what it did so far for each further line.

A process of its own, since building and reading must not slow down the one that measures.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import resource
import socket
import sys

import account
import bodies
from account import DONE

# Bytes of a connection that takes little, and of one that takes all.
NARROW, WIDE = 4096, 1 << 20
# Where a status lies in an answer. What follows is dropped by the system and never copied: an attacker on another machine would not read on
# the server's processors either.
STATUS, SINK = slice(9, 12), bytearray(1 << 20)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is sent. Times are in seconds."""

    # Arguments of bodies.recipe; without, the request is a GET.
    recipe: dict | None
    path: str
    key: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    connections: int = 1
    # Requests of each connection; without, it goes on.
    times: int | None = None
    # Requests a second of all connections together, instead of each connection sending when its last request is answered.
    rate: float | None = None
    # Before an answer is read.
    hold: float = 0.0
    # After an answer that is a refusal.
    pause: float = 1.0
    # The request so many times over, one behind the other, before its answers are read. 0 for a connection that says nothing.
    copies: int = 1
    # Hang up so long after a request was sent.
    give_up: float | None = None

    def requests(self) -> list[bytes]:
        """A request for each connection, head and body."""
        method = "GET" if self.recipe is None else "POST"
        headers = {"host": "a", "connection": "keep-alive" if self.copies != 1 else "close", "content-type": "application/json"} | self.headers
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        found = itertools.repeat(b"") if self.recipe is None else bodies.recipe(self.path, **self.recipe)
        made = []
        for sent in itertools.islice(found, self.connections):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"{method} {self.path} HTTP/1.1\r\n{lines}content-length: {len(sent)}\r\n\r\n"
            made.append((head.encode() + sent) * self.copies)
        return made

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


async def connected(address: tuple[str, int], hold: float):
    """A connection that takes little beyond what is read from it, if its answer is to wait."""
    opened = socket.socket()
    opened.setblocking(False)
    if hold:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    await asyncio.get_running_loop().sock_connect(opened, address)
    return opened


async def exchange(opened: socket.socket, plan: Plan, request: bytes) -> str:
    """Sends the request and reads the whole answer; gives its status."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(opened, request)
    DONE["sent"] += 1
    if plan.hold:
        await asyncio.sleep(plan.hold)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WIDE)
    status = (await loop.sock_recv(opened, STATUS.stop))[STATUS].decode() or "closed"
    while got := await dropped(opened):
        DONE["bytes"] += got
    return status


async def dropped(opened: socket.socket) -> int:
    """Drops what came, once something did; gives how much it was, 0 at the end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return opened.recv_into(SINK, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            came = loop.create_future()
            loop.add_reader(opened, lambda came=came: came.done() or came.set_result(None))
            try:
                await came
            finally:
                loop.remove_reader(opened)


async def ask(address: tuple[str, int], plan: Plan, request: bytes) -> str:
    """One request over a connection of its own; gives its status, or what went wrong."""
    opened = None
    try:
        opened = await connected(address, plan.hold)
        status = await asyncio.wait_for(exchange(opened, plan, request), plan.give_up)
    except TimeoutError:
        status = "given up"
    except OSError as error:
        status = type(error).__name__
    finally:
        if opened is not None:
            opened.close()
    DONE[status] += 1
    return status


async def client(address: tuple[str, int], plan: Plan, request: bytes) -> None:
    """Sends the same request again and again, as often as the plan says."""
    for _ in itertools.count() if plan.times is None else range(plan.times):
        if await ask(address, plan, request) not in ("200", "given up"):
            await asyncio.sleep(plan.pause)
    DONE["finished"] += 1


async def paced(address: tuple[str, int], plan: Plan, requests: list[bytes]) -> None:
    """Sends at the plan's rate, whatever the server does; no more at once than there are connections."""
    loop, flying = asyncio.get_running_loop(), set()
    due = loop.time()
    for request in itertools.cycle(requests):
        due += 1 / plan.rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        if len(flying) >= plan.connections:
            DONE["not sent"] += 1
            continue
        task = asyncio.create_task(ask(address, plan, request))
        flying.add(task)
        task.add_done_callback(flying.discard)


async def attack(address: tuple[str, int], plan: Plan) -> None:
    requests = plan.requests()
    if plan.rate is not None:
        await paced(address, plan, requests)
    await asyncio.gather(*(client(address, plan, request) for request in requests))
    await asyncio.Event().wait()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Not an argument: one has 128 KiB at most.
    plan = Plan(**json.loads(sys.stdin.readline()))
    account.begin()
    asyncio.run(attack((sys.argv[1], int(sys.argv[2])), plan))
