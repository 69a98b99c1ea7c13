"""The parts for GPUs as they are pinned, from wheels that have the names of what is wanted and nothing else."""

from __future__ import annotations

from unittest import mock

from workshop import LIBRARY, TAG, SetupTest, run_tests, setup

PROVIDERS = ("shared", "cuda", "tensorrt")  # Of the wheel for x86-64.
# What the provider is linked to; then what is opened by name, and missed only when a node wants it.
LINKED = {"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"}
OPENED = {"libcudnn.so.9", "libcudnn_graph.so.9", "libcufft.so.12", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0"}


class Cuda(SetupTest):
    def machine(self, name: str, glibc: str = "2.39") -> None:
        answers = {"system": "Linux", "machine": name, "libc_ver": ("glibc", glibc)}
        patches = {function: mock.Mock(return_value=answer) for function, answer in answers.items()}
        patch = mock.patch.multiple(setup.platform, **patches)
        patch.start()
        self.addCleanup(patch.stop)

    def runtime_wheel(self, *providers: str) -> None:
        folder = "onnxruntime/capi/libonnxruntime"
        members = {f"{folder}_providers_{name}.so": b"" for name in providers or PROVIDERS}
        members |= {f"onnxruntime/{name}": name.encode() for name in ("LICENSE", "ThirdPartyNotices.txt")}
        package, version = setup.wanted_parts(["runtime-cuda"])[0].wheels[0].requirement.split()[0].split("==")
        self.wheel(package, version, f"cp312-cp312-{TAG}", {**members, f"{folder}.so.{version}": LIBRARY})

    def cuda_wheels(self) -> None:
        """What the pinned wheels of CUDA have, and things that nobody wants."""
        for wheel in setup.wanted_parts(["cuda"])[0].wheels[1:]:
            package, version = wheel.requirement.split()[0].split("==")
            *_, folder, libraries = setup.CUDA[package]
            members = {f"nvidia/{folder}/lib/{library}": library.encode() for library in libraries}
            members |= {f"nvidia/{folder}/include/header.h": b"", f"nvidia/{folder}/lib/libnvblas.so.13": b""}
            information = f"{package.replace('-', '_')}-{version}.dist-info"
            members[f"{information}/licenses/License.txt"] = f"licence of {package}".encode()
            self.wheel(package, version, f"py3-none-{wheel.platform}", members)

    def libraries(self) -> list[str]:
        return sorted(path.name for path in (self.state / "runtime-cuda").glob("*.so*"))

    def assert_nothing_half_done(self) -> None:
        self.assertEqual([name for name in self.names() if name.startswith("incoming")], [])

    def test_every_wheel_is_pinned_for_both_machines_and_has_a_platform_of_its_own(self) -> None:
        for machine, glibc in (("x86_64", "2_28"), ("aarch64", "2_34")):
            with self.subTest(machine):
                self.machine(machine)
                [part] = setup.wanted_parts(["cuda"])
                for wheel in part.wheels:
                    self.assertRegex(wheel.requirement, r"^[a-z0-9-]+==[\d.]+( --hash=sha256:[0-9a-f]{64}){2}$")
                runtime, *cuda = part.wheels
                self.assertEqual(runtime.platform, f"manylinux_{glibc}_{machine}")
                tags = {f"manylinux{tag}_{machine}" for tag in ("2014", "_2_27")}
                self.assertEqual({wheel.platform for wheel in cuda}, tags)

    def test_one_folder_has_the_runtime_its_providers_and_cuda_with_their_licences(self) -> None:
        self.machine("x86_64")
        self.runtime_wheel()
        self.cuda_wheels()
        self.assertTrue(self.run_setup(setup.wanted_parts(["cuda"]))[0])
        self.assertEqual(self.names(), ["runtime-cuda", "setup.lock"])
        runtime = [f"libonnxruntime{part}.so" for part in ("", *(f"_providers_{name}" for name in PROVIDERS))]
        cuda = [library for *_, libraries in setup.CUDA.values() for library in libraries]
        self.assertEqual(self.libraries(), sorted(runtime + cuda))
        self.assertEqual((LINKED | OPENED) - set(cuda), set())
        for package in setup.CUDA:
            licence = self.state / f"runtime-cuda/LICENSE-{package}"
            self.assertEqual(licence.read_text(), f"licence of {package}")
        self.assertEqual((self.state / "runtime-cuda/LICENSE").read_text(), "LICENSE")

    def test_images_get_it_without_cuda(self) -> None:
        self.machine("x86_64")
        self.runtime_wheel()
        self.run_setup(setup.wanted_parts(["runtime-cuda"]))
        self.assertEqual({name for name in self.libraries() if "onnxruntime" not in name}, set())
        self.assertEqual(len(self.libraries()), 4)

    def test_arm64_has_no_provider_for_tensorrt(self) -> None:
        self.machine("aarch64")
        self.runtime_wheel("shared", "cuda")
        self.cuda_wheels()
        self.run_setup(setup.wanted_parts(["cuda"]))
        self.assertIn("libcudnn.so.9", self.libraries())
        self.assertEqual([name for name in self.libraries() if "tensorrt" in name], [])

    def test_cuda_is_added_to_the_runtime_and_not_lost_again(self) -> None:
        self.machine("x86_64")
        self.runtime_wheel()
        self.cuda_wheels()
        alone, whole = setup.wanted_parts(["runtime-cuda", "cuda"])
        self.assertTrue(self.run_setup([alone])[0])
        self.assertTrue(self.run_setup([whole])[0])
        for parts in ([alone], [whole], [alone, whole], [whole, alone]):
            self.assertEqual(self.run_setup(parts), (False, ""))
        (self.state / "runtime-cuda/libcublasLt.so.13").unlink()
        self.assertTrue(self.run_setup([whole])[0])
        self.assertIn("libcublasLt.so.13", self.libraries())

    def test_a_wheel_that_fails_leaves_the_folder_as_it_was(self) -> None:
        self.machine("x86_64")
        self.runtime_wheel()
        self.cuda_wheels()
        alone, whole = setup.wanted_parts(["runtime-cuda", "cuda"])
        self.run_setup([alone])
        last = next(self.wheels.glob("nvidia_cudnn_cu13-*.whl"))
        last.write_bytes(last.read_bytes()[:-30])
        self.assertIn("nvidia_cudnn_cu13", self.fails([whole]))
        self.assertEqual(self.run_setup([alone]), (False, ""))

    def test_an_old_glibc_is_told(self) -> None:
        self.machine("aarch64", "2.33")
        with self.assertRaisesRegex(setup.SetupError, r"aarch64 with glibc 2\.34"):
            setup.wanted_parts(["cuda"])


if __name__ == "__main__":
    run_tests()
