"""The commands of Sextant that are measured, and the server."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MODEL = "minilm"
VERSION = f"{MODEL}@1"
INPUTS = 64
START_SECONDS = 180


@dataclass(frozen=True)
class Sextant:
    """The binary, and the repository with the model."""

    binary: Path
    models: Path

    def version(self) -> str:
        """As it names itself."""
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def copy_models(self, to: Path) -> "Sextant":
        """A repository of its own: a reference that is stored there is seen by nobody else."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.models / MODEL, to / MODEL, ignore=shutil.ignore_patterns("references"))
        return Sextant(self.binary, to)

    def fit(self, texts: Path, output: Path | None = None) -> dict:
        """Makes a reference, in the repository where no `output` is named."""
        where = [] if output is None else ["--output", str(output)]
        return self._json("drift", "fit", VERSION, "--input", str(texts), *where)

    def replay(self, files: list[Path], run_time: float, reference: Path | None = None) -> dict[str, dict]:
        """What each stream gave, by the name of its file."""
        # From their folder, for a thousand whole paths are more than a command line holds.
        folder = files[0].parent
        which = [] if reference is None else ["--reference", str(reference)]
        arguments = ["--expected-run-time", str(run_time), *which, *(file.name for file in files)]
        found = self._json("drift", "replay", VERSION, *arguments, cwd=folder)
        return {replay["file"]: replay for replay in found}

    def _json(self, *arguments: str, cwd: Path | None = None):
        command = [self.binary, *arguments, "--models", self.models, "--json"]
        done = subprocess.run(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    @contextmanager
    def serving(self, log: Path) -> Iterator[str]:
        """A server on a free port; gives its address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [self.binary, "serve", "--models", self.models, "--listen", address]
        command += ["--sessions", "2", "--threads", "1", "--lone-threads", "0"]
        with log.open("w") as output:
            server = subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
            try:
                _await(f"http://{address}/readyz", server)
                yield f"http://{address}"
            finally:
                server.terminate()
                server.wait()


def environment() -> dict[str, str]:
    """Without what is set for the peers alone."""
    return {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "OMP_NUM_THREADS")}


def _await(url: str, server: subprocess.Popen) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server did not start: see its log below .sextant/drift-bench")


def items(address: str, texts: list[str], **more: object) -> Iterator[dict]:
    """The answer's items for `texts`."""
    for begin in range(0, len(texts), INPUTS):
        asked = {"model": MODEL, "input": texts[begin : begin + INPUTS], "encoding_format": "base64", **more}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{address}/v1/embeddings", json.dumps(asked).encode(), headers)
        try:
            with urllib.request.urlopen(request) as answer:
                yield from json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"the server refused: {error.read().decode()}") from error


def embed(address: str, texts: list[str]) -> np.ndarray:
    """The vectors of `texts`; `[texts, dimensions]`."""
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items(address, texts)]
    return np.stack(rows)
