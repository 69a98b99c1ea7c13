"""What a server and an import reach outside of themselves: every system call that opens a connection or changes a file, for 30 seconds."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from machine import BINARY, MODELS, RUNTIME, WEIGHTS, needs  # noqa: E402

SECONDS = 30

# `12 openat(AT_FDCWD, "/a/b", O_WRONLY|O_CREAT, 0666) = 3`
CALL = re.compile(r"^\d+\s+(?:[\d.]+\s+)?(\w+)\((.*)")
CHANGES = ("creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink",
           "unlinkat", "rmdir", "truncate", "mknod", "mknodat", "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat")
OPENS = ("open", "openat", "openat2")
SENDS = ("connect", "sendto", "sendmsg", "sendmmsg")


def traced(command, folder, environment, **options):
    """Runs the command under strace, which writes to `calls` in the folder."""
    trace = ",".join(f"?{name}" for name in (*CHANGES, *OPENS, *SENDS, "bind"))
    return subprocess.Popen(
        ["strace", "-f", "-qq", "-s", "512", "-e", f"trace={trace}", "-e", "signal=none", "-o", folder / "calls", *command],
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options,
    )


def outside(calls, own):
    """The calls that reach another host, name a host, or change a file that is not below one of the folders `own`."""
    found = []
    for line in calls.splitlines():
        call = CALL.match(line)
        if not call:
            continue
        name, arguments = call.groups()
        if name in SENDS:
            # An answer on a connection that was accepted has no address.
            if name == "connect" or re.search(r"sin6?_port|sun_path", arguments):
                found.append(line)
        elif name in CHANGES or (name in OPENS and re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", arguments)):
            paths = re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)
            if any(not is_own(path, own) for path in paths):
                found.append(line)
    return found


# No file: nothing, and the process' own peak of memory, which begins anew before a version is measured.
NO_FILES = ("/dev/null", "/proc/self/clear_refs")


def is_own(path, own):
    # A path that is not absolute is below the working directory, which is the run's own folder.
    absolute = os.path.normpath(path) if path.startswith("/") else None
    return absolute is None or absolute in NO_FILES or any(absolute.startswith(f"{folder}/") for folder in own)


class Run:
    """A folder of its own for a traced command, and an environment that asks for everything that must not happen."""

    def __init__(self, test):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()
        for name in ("home", "tmp", "cache", "models"):
            (self.folder / name).mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = kept | {
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "ORT_DYLIB_PATH": str(RUNTIME),
            "ORT_DISABLE_TELEMETRY": "0",
            "ORT_TELEMETRY": "1",
            "USER": "somebody",
        }

    def found(self):
        calls = (self.folder / "calls").read_text(errors="replace")
        return calls, outside(calls, [self.folder])


@needs(BINARY, MODELS, RUNTIME, WEIGHTS, "strace")
class Outbound(unittest.TestCase):
    def test_the_reader_of_calls_finds_a_look_up_and_a_file(self):
        run = Run(self)
        program = "import pathlib, socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 53)); " \
                  "pathlib.Path(sys.argv[1]).write_text('')"
        with tempfile.TemporaryDirectory() as elsewhere:
            process = traced([sys.executable, "-c", program, f"{elsewhere}/.ses"], run.folder, run.environment)
            self.assertEqual(process.wait(), 0, process.communicate())
        _, found = run.found()
        self.assertEqual(len(found), 2, found)
        self.assertIn("htons(53)", found[0])
        self.assertIn("/.ses", found[1])

    def test_a_server_and_an_import_reach_nothing_but_their_own(self):
        server, importing = Run(self), Run(self)
        shutil.copytree(MODELS, server.folder / "models", dirs_exist_ok=True)
        imports = threading.Thread(target=self.import_again_and_again, args=(importing,))
        imports.start()
        try:
            self.serve(server)
        finally:
            imports.join()
        for run, told in ((server, "bind"), (importing, "probe.jsonl")):
            calls, found = run.found()
            self.assertIn(told, calls, "the trace is of something else")
            self.assertEqual(found, [])
            # The runtime's telemetry keeps a device's id beside other temporary files.
            self.assertEqual(list(run.folder.rglob(".ses")), [])
            self.assertEqual(list((run.folder / "tmp").iterdir()) + list((run.folder / "home").iterdir()), [])

    def serve(self, run):
        command = [BINARY, "serve", "--models", run.folder / "models", "--listen", "127.0.0.1:0", "--sessions", "1", "--lone-threads", "0",
                   "--max-batch-tokens", "4096", "--cache-dir", run.folder / "cache"]
        process = traced(command, run.folder, run.environment | {"SEXTANT_LOG_FORMAT": "json"}, start_new_session=True)
        threading.Event().wait(SECONDS)
        # strace passes no signal on: the server is its only child.
        if process.poll() is None:
            [child] = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGTERM)
            ended = "at the signal"
        else:
            ended = "by itself"
        errors = process.communicate(timeout=60)[1]
        self.assertEqual((ended, process.returncode), ("at the signal", 0), errors)

    def import_again_and_again(self, run):
        until, calls = time.monotonic() + SECONDS, ""
        while time.monotonic() < until:
            process = traced([BINARY, "import", WEIGHTS, "--models", run.folder / "models", "--name", "traced"], run.folder, run.environment)
            errors = process.communicate(timeout=300)[1]
            if process.returncode:
                raise AssertionError(errors)
            calls += (run.folder / "calls").read_text(errors="replace")
        (run.folder / "calls").write_text(calls)


if __name__ == "__main__":
    unittest.main()
