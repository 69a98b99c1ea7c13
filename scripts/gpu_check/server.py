"""A server of the release binary, and what is asked of it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import struct
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from .binary import Binary, CommandFailed

GREETING = re.compile(r"Sextant serves on (http://127\.0\.0\.1:\d+)")
# A start loads the provider's libraries and measures which sessions suit the machine.
START = 180.0
# What a stop may take: the server's own limit of 30 s, and its delay before.
STOP = 40.0
# Texts of one request for tokens: their answer has a hundred bytes a token.
TOKENIZED = 500
MODEL = "checked"


class Server:
    """Ready when it is made. Its standard output and its log are files in `folder`."""

    def __init__(self, binary: Binary, folder: Path, *flags: object) -> None:
        folder.mkdir(parents=True)
        self.binary, self.output, self.log_file = binary, folder / "output", folder / "log"
        with open(self.output, "wb") as output, open(self.log_file, "wb") as log:
            command = ("serve", "--listen=127.0.0.1:0", "--log-format=json", f"--cache-dir={folder / 'cache'}", *flags)
            self.process = binary.start(*command, stdout=output, stderr=log)
        started = time.monotonic()
        self.url = self.wait(started + START)
        self.seconds_to_start = time.monotonic() - started
        self.address = urlsplit(self.url).netloc

    def wait(self, end: float) -> str:
        """Until it says where it serves, which it does when its models are loaded."""
        while not (greeting := GREETING.search(self.output.read_text(encoding="utf-8"))):
            if self.process.poll() is not None:
                self.binary.children.forget(self.process)
                raise StartFailed(self.process.returncode, self.last_line())
            if time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                self.binary.children.forget(self.process)
                raise StartFailed(None, f"not ready after {START:.0f} s: {self.last_line()}")
            time.sleep(0.05)
        return greeting[1]

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> list[str]:
        return self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()

    def last_line(self) -> str:
        lines = [line for line in self.log() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def lives(self) -> bool:
        return self.process.poll() is None

    def ask(self, method: str, path: str, body: dict | None = None, timeout: float = 60.0) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def must(self, method: str, path: str, body: dict | None = None) -> bytes:
        """The body of an answer that must be 200."""
        status, answer = self.ask(method, path, body)
        if status != 200:
            raise CommandFailed(f"{method} {path} was answered {status}: {answer[:200].decode(errors='replace')}")
        return answer

    def ready(self) -> dict:
        return json.loads(self.must("GET", "/readyz"))

    def metrics(self) -> Metrics:
        return Metrics(self.must("GET", "/metrics").decode())

    def vectors(self, texts: list[str]) -> list[tuple[float, ...]]:
        """Of texts in one request."""
        body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
        data = json.loads(self.must("POST", "/v1/embeddings", body))["data"]
        ordered = sorted(data, key=lambda one: one["index"])
        return [floats(base64.b64decode(one["embedding"])) for one in ordered]

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The ids that each text becomes, cut to what the model takes."""
        most = json.loads(self.must("GET", "/info"))["max_input_length"]
        ids: list[list[int]] = []
        for first in range(0, len(texts), TOKENIZED):
            body = {"inputs": texts[first : first + TOKENIZED]}
            ids += ([token["id"] for token in text] for text in json.loads(self.must("POST", "/tokenize", body)))
        # What is too long is cut before its last token, which ends every text.
        return [one if len(one) <= most else [*one[: most - 1], one[-1]] for one in ids]

    def stop(self) -> int | None:
        """Ends it as an operator would. The exit code; `None` where it had to be killed."""
        if self.lives():
            self.process.terminate()
        return self.end()

    def end(self) -> int | None:
        """Waits for the end of one that was told to stop; a second signal would end it at once. The exit code, as above."""
        try:
            return self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.binary.children.forget(self.process)


class StartFailed(CommandFailed):
    """A server ended, or had to be, before it served."""

    def __init__(self, code: int | None, cause: str) -> None:
        super().__init__(f"the server did not start (exit code {code}): {cause}")
        self.code, self.cause = code, cause


class Metrics:
    """The series of one look at /metrics."""

    SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)
    LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text: str) -> None:
        self.series = [(name, dict(self.LABEL.findall(labels)), float(value)) for name, labels, value in self.SERIES.findall(text)]

    def find(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Every series of that name with these labels, and perhaps others."""
        return [(of, value) for found, of, value in self.series if found == name and labels.items() <= of.items()]

    def sum(self, name: str, **labels: str) -> float | None:
        """`None` where there is no such series."""
        values = [value for _, value in self.find(name, **labels)]
        return sum(values) if values else None


def floats(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // 4}f", data)
