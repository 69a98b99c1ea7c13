"""What these tests need of the machine they run on: the server's binary, its runtime and weights, programs and free ports."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A test may run it in another directory.
BINARY = pathlib.Path(
    os.environ.get("SEXTANT") or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/sextant"
).resolve()
MODELS = ROOT / ".sextant/models"
WEIGHTS = ROOT / ".sextant/weights"
RUNTIME = ROOT / ".sextant/runtime/libonnxruntime.so"
HELM = ROOT / ".sextant/deploy-tools/bin/helm"
# All that a server with real weights needs.
SERVER = (BINARY, MODELS, WEIGHTS, RUNTIME)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(**variables: str) -> dict[str, str]:
    """Without the SEXTANT_ variables of whoever runs the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEXTANT")}
    return own | {"ORT_DYLIB_PATH": str(RUNTIME)} | variables


def run(command, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(**variables), timeout=120)


def missing(needed) -> list[str]:
    """Those of files, and of programs by their names, that are not there."""
    there = {one: one.exists() if isinstance(one, pathlib.Path) else shutil.which(one) for one in needed}
    return [str(one) for one, found in there.items() if not found]


def skip(reason: str) -> None:
    """Ends a test or a class, and says why, which unittest does for those who ask only; where everything must run, it fails."""
    if os.environ.get("CI"):
        raise AssertionError(reason)
    print(f"skipped, {reason}", file=sys.stderr)
    raise unittest.SkipTest(reason)


def needs(*needed):
    """Skips a test, or a class of them, where a file or a program is not there; where everything must run, it fails."""

    def decorate(test):
        if isinstance(test, type):
            test.setUpClass = classmethod(decorate(test.setUpClass.__func__))
            return test

        @functools.wraps(test)
        def checked(self):
            if lacking := ", ".join(missing(needed)):
                skip(f"there is no {lacking}: `make setup` makes the server's files, SEXTANT names another binary, programs are "
                     "packages of the distribution")
            test(self)

        return checked

    return decorate
