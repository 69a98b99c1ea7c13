"""A real server with the chart's settings, its probes, and the real commands of its jobs. What a cluster adds is not here."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from chart import BINARY, CANARY, NAME, ROOT, ChartTest, container, find, merged, needs, render, run, server

MODELS = ROOT / ".sextant/models"
WEIGHTS = ROOT / ".sextant/weights"
RUNTIME = ROOT / ".sextant/runtime/libonnxruntime.so"
VALUES = merged(CANARY, {"import": {"enabled": True, "mode": "InitContainer", "name": "minilm", "source": "organisation/name"}})


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Live(ChartTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.documents = render(VALUES)
        self.secret = find(self.documents, "Secret", f"{NAME}-admin")["stringData"]
        self.data, self.admin = free_port(), free_port()

    def here(self, text):
        """What the chart says, with this machine's places in place of a pod's."""
        for there, here in (
            ("0.0.0.0:8080", f"127.0.0.1:{self.data}"),
            ("0.0.0.0:9090", f"127.0.0.1:{self.admin}"),
            (f"{NAME}:8080", f"127.0.0.1:{self.data}"),
            (f"{NAME}-admin:9090", f"127.0.0.1:{self.admin}"),
            ("/etc/sextant/admin/keys", f"{self.folder}/keys"),
            ("/etc/sextant/config", str(self.folder)),
        ):
            text = text.replace(there, here)
        return re.sub(r'^("?)/(models|cache)\b', rf"\1{self.folder}/\2", re.sub(r'(?<== ")/(models|cache)\b', rf"{self.folder}/\1", text))

    def play(self, one):
        variables = {"SEXTANT_ADMIN_KEY": self.secret["client-key"], "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
        finished = run(map(self.here, one["command"] + one["args"]), ORT_DYLIB_PATH=str(RUNTIME), **variables)
        self.assertEqual(finished.returncode, 0, finished.stdout + finished.stderr)
        return finished.stdout

    def canary(self, values):
        return self.play(container(find(render(merged(VALUES, {"canary": values})), "Job")["spec"]["template"]["spec"]))

    def probe(self, name):
        probe = container(server(self.documents))[name]
        url = f"http://127.0.0.1:{self.admin}{probe['httpGet']['path']}"
        try:
            return urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    @needs(BINARY, MODELS, WEIGHTS, RUNTIME)
    def test_it_starts_changes_versions_and_stops(self):
        shutil.copytree(MODELS / "minilm", self.folder / "models/minilm")
        second = [BINARY, "import", WEIGHTS, "--models", self.folder / "models", "--name", "minilm", "--licence", "Apache-2.0"]
        self.assertEqual(run(second, ORT_DYLIB_PATH=str(RUNTIME)).returncode, 0)
        (self.folder / "keys").write_text(self.secret["admin-keys"])
        toml = find(self.documents, "ConfigMap")["data"]["sextant.toml"]
        (self.folder / "sextant.toml").write_text("\n".join(map(self.here, toml.splitlines())))
        one = container(server(self.documents))
        own = {name: value for name, value in os.environ.items() if not name.startswith("SEXTANT")}
        log = open(self.folder / "log", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [BINARY, *map(self.here, one["args"])], env=own | {"ORT_DYLIB_PATH": str(RUNTIME)}, stdout=log, stderr=log
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        startup = one["startupProbe"]
        end = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while self.probe("startupProbe") != 200:
            self.assertIsNone(process.poll(), (self.folder / "log").read_text())
            self.assertLess(time.monotonic(), end, "longer than the startup probe waits")
            time.sleep(0.5)
        self.assertEqual((self.probe("readinessProbe"), self.probe("livenessProbe")), (200, 200))

        [pod] = [document for document in self.documents if document["kind"] == "Pod"]
        self.assertIn("1 answered, 0 failed", self.play(container(pod["spec"])))
        # The model has a version, so a container imports none.
        [first] = server(self.documents)["initContainers"]
        self.assertIn("nothing to do", self.play(first))

        trial = {"version": max(int(path.name) for path in (self.folder / "models/minilm/versions").iterdir())}
        self.assertIn("on trial", self.canary(trial))
        self.assertIn("nothing to do", self.canary(trial))
        self.assertIn("answers 50 %", self.canary(trial | {"percent": 50}))
        self.assertIn("is the version that serves", self.canary(trial | {"action": "promote"}))
        self.assertIn("minilm@1 is the version that serves", self.canary(trial | {"action": "rollback"}))
        self.assertIn("nothing to do", self.canary(trial))

        grace = server(self.documents)["terminationGracePeriodSeconds"]
        began = time.monotonic()
        process.terminate()
        time.sleep(0.5)
        self.assertEqual((self.probe("readinessProbe"), self.probe("livenessProbe")), (503, 200), "unready, and alive")
        self.assertEqual(process.wait(timeout=grace), 0)
        self.assertGreaterEqual(time.monotonic() - began, 5, "the drain delay")


if __name__ == "__main__":
    unittest.main()
