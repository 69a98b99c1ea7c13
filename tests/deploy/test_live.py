"""A real server with the chart's settings, its probes, and the real commands of its jobs. What a cluster adds is not here."""

import pathlib
import shutil
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from chart import CANARY, CLIENT_KEYS, ChartTest, container, find, merged, render, server
from fleet import until
from machine import BINARY, MODELS, SERVER, WEIGHTS, needs, run
from replica import Replica

VALUES = merged(CANARY, {"import": {"enabled": True, "mode": "InitContainer", "name": "minilm", "source": "organisation/name"}})


class Live(ChartTest):
    def scraped(self, replica, key):
        """The status that Prometheus gets with that key."""
        headers = {"authorization": f"Bearer {CLIENT_KEYS[key]}"} if key else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://{replica.admin}/metrics", headers=headers)) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    @needs(*SERVER)
    def test_it_starts_changes_versions_and_stops(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        models = pathlib.Path(folder.name) / "models"
        shutil.copytree(MODELS / "minilm", models / "minilm")
        second = run([BINARY, "import", WEIGHTS, "--models", models, "--name", "minilm", "--licence", "Apache-2.0"])
        self.assertEqual(second.returncode, 0, second.stderr)
        documents = render(VALUES)
        replica = Replica(documents, pathlib.Path(folder.name) / "pod", models)
        self.addCleanup(replica.close)

        replica.start()
        replica.wait()
        self.assertEqual((replica.probe("readinessProbe"), replica.probe("livenessProbe")), (200, 200))

        [pod] = [document for document in documents if document["kind"] == "Pod"]
        self.assertIn("1 answered, 0 failed", replica.play(container(pod["spec"]), SEXTANT_API_KEY=CLIENT_KEYS["embed"]))
        self.assertEqual([self.scraped(replica, key) for key in ("metrics", "embed", None)], [200, 403, 401])
        # The model has a version, so a container imports none.
        [first] = server(documents)["initContainers"]
        self.assertIn("nothing to do", replica.play(first))

        def canary(values):
            job = find(render(merged(VALUES, {"canary": values})), "Job")
            return replica.play(container(job["spec"]["template"]["spec"]), SEXTANT_API_KEY=CLIENT_KEYS["admin"])

        trial = {"version": max(int(path.name) for path in (models / "minilm/versions").iterdir())}
        self.assertIn("on trial", canary(trial))
        self.assertIn("nothing to do", canary(trial))
        self.assertIn("answers 50 %", canary(trial | {"percent": 50}))
        self.assertIn("is the version that serves", canary(trial | {"action": "promote"}))
        self.assertIn("minilm@1 is the version that serves", canary(trial | {"action": "rollback"}))
        self.assertIn("nothing to do", canary(trial))

        began = time.monotonic()
        replica.process.terminate()
        until("it is unready", lambda: replica.probe("readinessProbe") == 503)
        self.assertEqual(replica.probe("livenessProbe"), 200, "and alive")
        self.assertEqual(replica.process.wait(timeout=replica.pod["terminationGracePeriodSeconds"]), 0)
        self.assertGreaterEqual(time.monotonic() - began, 5, "the drain delay")


if __name__ == "__main__":
    unittest.main()
