"""The server that is attacked: with real weights, keys, and a repository of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import machine
from bodies import MODEL

# Those who embed; the last one has a quota.
CALLERS = ("honest", "greedy", "first", "second", "third")
QUOTA = 20_000
# A server measures its batches when it starts, which takes minutes beside other work.
START_SECONDS = 600
_LINE = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Place:
    """The binary that is measured, and a folder for what is made."""

    binary: pathlib.Path
    folder: pathlib.Path

    @property
    def models(self) -> pathlib.Path:
        """The repository of the server that is attacked."""
        return self.folder / "models"

    def command(self, *arguments, **variables: str) -> str:
        """Runs a command of the binary; gives its standard output."""
        done = machine.run([self.binary, *arguments], **variables)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def knows(self, command: str, flag: str) -> bool:
        """Whether a command of the binary has this flag."""
        return flag in self.command(command, "--help")

    def new_keys(self) -> tuple[pathlib.Path, dict[str, str]]:
        """A keys file, and the keys by their names."""
        wanted = {name: ["--role", "embed"] for name in CALLERS}
        wanted["quota"] = ["--role", "embed", "--tokens-per-second", str(QUOTA)]
        wanted["operator"] = ["--role", "admin", "--role", "metrics"]
        keys, entries = {}, []
        for name, arguments in wanted.items():
            done = machine.run([self.binary, "key", "new", name, *arguments])
            entries.append(done.stdout)
            keys[name] = done.stderr.strip()
        file = self.folder / "keys.toml"
        file.write_text("".join(entries), encoding="utf-8")
        return file, keys

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """The folder, empty, and gone afterwards."""
        self.folder.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def serving(self, *flags: str, has_keys: bool = True) -> Iterator[Server]:
        """A new server on a copy of the repository; both are gone afterwards."""
        with self.made():
            shutil.copytree(machine.MODELS / MODEL, self.models / MODEL)
            server = Server(self, flags, has_keys)
            try:
                server.until_ready()
                yield server
            finally:
                server.kill()


class Server:
    """A process of the binary, from its start on."""

    def __init__(self, place: Place, flags: tuple[str, ...], has_keys: bool) -> None:
        self.place, self.models = place, place.models
        file, self.keys = place.new_keys() if has_keys else (None, {})
        self.host, self.port = "127.0.0.1", machine.free_port()
        self.address = f"{self.host}:{self.port}"
        self.log = place.folder / "log"
        line = [place.binary, "serve", "--models", self.models, "--listen", self.address]
        line += ["--cache-dir", place.folder / "cache", *(["--keys-file", file] if has_keys else []), *flags]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(list(map(str, line)), env=machine.environment(), stdout=log, stderr=log)
        self.pid = self.process.pid

    def until_ready(self) -> None:
        self.until("the server is ready", lambda: self.ask("GET", "/readyz", key="").status == 200, START_SECONDS)

    def until(self, what: str, is_so: Callable[[], bool], seconds: float) -> float:
        """Seconds until `is_so`; raises TimeoutError after `seconds`, and RuntimeError if the server ends before."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if is_so():
                    return time.monotonic() - began
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"not within {seconds} s: {what}")
            time.sleep(0.05)

    def ask(self, method: str, path: str, body=None, key: str = "honest", timeout: float = 120, **headers: str) -> Answer:
        """One request with the key of that name, over a connection of its own; `_` in a header's name is a hyphen."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"content-type": "application/json"} if body is not None else {}
        sent |= {"authorization": f"Bearer {self.keys[key]}"} if key in self.keys else {}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body), sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def page(self) -> Page:
        """What `/metrics` shows now."""
        answer = self.ask("GET", "/metrics", key="operator")
        if answer.status != 200:
            raise RuntimeError(f"/metrics: {answer.status} {answer.body.decode()}")
        return Page.read(answer.body.decode())

    def resident(self) -> int:
        """Resident bytes."""
        return memory(self.pid, "VmRSS")

    def peak(self) -> int:
        """Most resident bytes since `forget_peak`."""
        return memory(self.pid, "VmHWM")

    def forget_peak(self) -> None:
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def sessions(self) -> int:
        """Sessions of the version that was loaded last, by the log."""
        return int(re.findall(r"INFO loaded .* sessions=(\d+)", self.log.read_text())[-1])

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signalled(self, number: signal.Signals, seconds: float) -> tuple[float, int]:
        """Sends a signal; gives the seconds until the process ended, and its exit status."""
        began = time.monotonic()
        os.kill(self.pid, number)
        code = self.process.wait(seconds)
        return time.monotonic() - began, code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def memory(pid: int, field: str) -> int:
    """Bytes of a process, by a field of its status."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) << 10


@dataclasses.dataclass(frozen=True)
class Page:
    """The samples of a scrape: name, labels, value."""

    samples: list[tuple[str, dict[str, str], float]]

    @classmethod
    def read(cls, text: str) -> Page:
        found = []
        for line in text.splitlines():
            if match := _LINE.match(line):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                found.append((match[1], labels, float(match[3])))
        return cls(found)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of that name with these labels."""
        return sum(value for found, of, value in self.samples if found == name and labels.items() <= of.items())
