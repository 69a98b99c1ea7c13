"""Runs the release binary's commands, and ends whatever runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A gate that is not passed: the command worked, and its report is printed.
NOT_PASSED = 3
# A command that takes longer hangs.
PATIENCE = 180.0


class CommandFailed(Exception):
    """A command that must succeed did not; one sentence for the table."""


@dataclass(frozen=True)
class Finished:
    code: int
    output: str
    errors: str
    seconds: float

    @property
    def cause(self) -> str:
        """The last line on standard error, where a command says why it failed."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


class Children:
    """The processes that run now, so that all of them can be ended, by their ids."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen] = []
        self.starting = self.interrupted = False

    def interrupt(self, *_: object) -> None:
        """The handler of signals. One that came while a process is started would leave it unknown to `end_all`: it waits so long."""
        self.interrupted = True
        if not self.starting:
            raise KeyboardInterrupt

    def start(self, command: Sequence[object], environment: Mapping[str, str], **streams) -> subprocess.Popen:
        self.starting = True
        try:
            process = subprocess.Popen([str(part) for part in command], env=environment, stdin=subprocess.DEVNULL, **streams)
            self.running.append(process)
        finally:
            self.starting = False
        if self.interrupted:
            raise KeyboardInterrupt
        return process

    def forget(self, process: subprocess.Popen) -> None:
        self.running.remove(process)

    def end_all(self) -> None:
        """Nobody waits for their answers any more."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
        for process in self.running:
            process.wait()
        self.running.clear()


class Binary:
    """The release binary with its runtime library."""

    def __init__(self, path: Path, onnxruntime: Path, children: Children) -> None:
        self.path, self.children = path, children
        # Without the settings of whoever runs this: they would be checked instead of what is said here.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SEXTANT", "ORT_"))}
        self.environment = own | {"SEXTANT_ONNXRUNTIME": str(onnxruntime)}

    def start(self, *arguments: object, **streams) -> subprocess.Popen:
        return self.children.start([self.path, *arguments], self.environment, **streams)

    def finish(self, *arguments: object, patience: float = PATIENCE) -> Finished:
        """Runs a command to its end, whatever that is. One that takes too long is ended."""
        return self.collect(self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), patience)

    def collect(self, process: subprocess.Popen, patience: float = PATIENCE) -> Finished:
        """Waits for a command that was started with pipes."""
        started = time.monotonic()
        try:
            output, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nit had not ended after {patience:.0f} s"
        self.children.forget(process)
        return Finished(process.returncode, output, errors, time.monotonic() - started)

    def run(self, *arguments: object) -> str:
        """The output of a command that must succeed."""
        return self.output_of(self.finish(*arguments), arguments[0])

    def json(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> dict:
        """What a command that must end with one of `codes` printed as JSON."""
        return self.json_of(self.finish(*arguments), arguments[0], codes)

    def output_of(self, finished: Finished, name: object, codes: tuple[int, ...] = (0,)) -> str:
        if finished.code not in codes:
            raise CommandFailed(f"`sextant {name}` ended with code {finished.code}: {finished.cause}")
        return finished.output

    def json_of(self, finished: Finished, name: object, codes: tuple[int, ...] = (0,)) -> dict:
        output = self.output_of(finished, name, codes)
        try:
            return json.loads(output)
        except ValueError:
            raise CommandFailed(f"`sextant {name}` printed no JSON: {output[:200]!r}") from None
