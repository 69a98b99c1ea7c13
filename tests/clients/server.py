"""The real server with real weights, for the clients: one of its own for each class of tests."""

from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile
import time
import unittest
import urllib.request

from machine import BINARY, ROOT, RUNTIME, WEIGHTS, environment, free_port, missing, run

# Widths that the version declares. The model was not trained for them: how true they are is not what is tried here.
WIDTHS = (256, 128)
PROMPT = "query: "
REFERENCE = [json.loads(line) for line in open(ROOT / "tests/data/minilm_reference.jsonl", encoding="utf-8")]
TEXTS = [one["text"] for one in REFERENCE if one["text"]]
VECTORS = [one["embedding"] for one in REFERENCE if one["text"]]
# Measuring how the machine is used best takes longer than the tests.
QUICK = ("--sessions=1", "--lone-threads=0", "--max-batch-tokens=1024")


class Server:
    """A server of the version `minilm@1`, with `flags` besides."""

    def __init__(self, *flags: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        models = folder / "models"
        widths = ",".join(map(str, WIDTHS))
        command = (BINARY, "import", WEIGHTS, "--models", models, "--name=minilm", f"--matryoshka={widths}", f"--prompt=query={PROMPT}")
        imported = run(command)
        if imported.returncode:
            raise AssertionError(imported.stderr)
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.log = folder / "log"
        with open(self.log, "w", encoding="utf-8") as log:
            command = [BINARY, "serve", f"--models={models}", f"--cache-dir={folder / 'cache'}", f"--listen={self.address}",
                       "--drain-delay=0s", *QUICK, *flags]
            self.process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise AssertionError(f"it does not get ready: {self.log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def post(self, path: str, body: dict) -> object:
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, framed by the special tokens."""
        [tokens] = self.post("/tokenize", {"inputs": text})
        return [token["id"] for token in tokens]

    def space(self) -> str:
        """The vector space of its version."""
        with urllib.request.urlopen(f"{self.url}/admin/v1/models/minilm", timeout=60) as answer:
            return json.load(answer)["serving"]["versions"][0]["space"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


class ClientTest(unittest.TestCase):
    """A test with a server; `FLAGS` are its own."""

    FLAGS: tuple[str, ...] = ()
    # Entries of a keys file, if the server has one.
    KEYS: tuple[tuple[str, ...], ...] = ()
    server: Server
    # The keys by their names.
    keys: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        if lacking := ", ".join(missing((BINARY, WEIGHTS, RUNTIME))):
            raise AssertionError(f"there is no {lacking}: `make setup` makes the server's files, SEXTANT names another binary")
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        made = {name: run((BINARY, "key", "new", name, *rest)) for name, *rest in cls.KEYS}
        cls.keys = {name: one.stderr.strip() for name, one in made.items()}
        (folder / "keys.toml").write_text("".join(one.stdout for one in made.values()), encoding="utf-8")
        cls.server = Server(*cls.FLAGS, *([f"--keys-file={folder}/keys.toml"] if made else []))
        cls.addClassCleanup(cls.server.close)

    def assert_vectors(self, found, expected=None) -> None:
        """Those of the reference, or `expected`, but for the last digits."""
        expected = VECTORS if expected is None else expected
        self.assertEqual(len(found), len(expected))
        for one, other in zip(found, expected):
            self.assertEqual(len(one), len(other))
            self.assertLess(max(abs(a - b) for a, b in zip(one, other)), 1e-6)
