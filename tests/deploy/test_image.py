"""The Dockerfile: linted, built for real on bases made of the distribution's packages, started, asked, and stopped."""

import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import tomllib
import unittest

from chart import container, find, render, server
from container import Container
from image import DOCKERFILE, Workshop, obstacle, stages
from machine import ROOT, skip

HADOLINT = pathlib.Path(sys.executable).parent / "hadolint"
# The image's own, and one of a platform that gives them out as it likes. /etc/passwd knows neither.
USERS = ("65532:65532", "54321:0")


def lint(text):
    finished = subprocess.run([HADOLINT, "--failure-threshold=style", "-"], input=text, capture_output=True, text=True)
    return finished.returncode, finished.stdout


class Text(unittest.TestCase):
    maxDiff = None

    def test_the_linter_has_nothing_to_say(self):
        text = DOCKERFILE.read_text()
        self.assertEqual(lint(text), (0, ""))
        # It looks at what it is told to pass over.
        code, said = lint(text.replace("# hadolint ignore=DL3008\n", ""))
        self.assertEqual(code, 1)
        self.assertIn("DL3008", said)

    def test_who_names_no_target_gets_cpu(self):
        *_, last = stages().values()
        self.assertEqual(last, ["FROM cpu"])

    def test_the_image_for_gpus_is_the_other_on_another_base(self):
        def rest(name):
            instructions = stages()[name]
            return instructions[instructions.index("COPY --from=files /image /"):]

        self.assertEqual(rest("cuda"), rest("cpu"))
        library = "COPY --from=runtime-cuda /setup/.sextant/runtime-cuda /usr/local/lib/onnxruntime"
        self.assertIn(library, stages()["cuda"])
        cuda = re.search(r"^ARG CUDA=nvidia/cuda:13\.[\d.]+-cudnn-runtime-", DOCKERFILE.read_text(), re.MULTILINE)
        self.assertTrue(cuda, "the provider of the pinned onnxruntime-gpu is for CUDA 13 and cuDNN 9")

    def test_nothing_is_made_in_what_is_shipped(self):
        for name in ("cpu", "demo", "cuda"):
            self.assertEqual([line for line in stages()[name] if line.startswith("RUN")], [], name)


class Built(unittest.TestCase):
    """The target `demo`, which stands on `cpu`."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if reason := obstacle():
            skip(reason)
        cls.workshop = Workshop()
        cls.addClassCleanup(cls.workshop.close)
        # What is shipped: the dev profile took no less processor time (10 minutes, with its debug information, against 8).
        cls.log = cls.workshop.build("demo", REVISION="0123abc", SOURCE="https://host.example/sextant")
        cls.config = cls.workshop.config("demo")
        cls.root = cls.workshop.root("demo")
        cls.environment = dict(entry.split("=", 1) for entry in cls.config["Env"])

    def start(self, user, command, **volumes):
        started = Container(self.root, user, command, self.environment, **volumes)
        self.addCleanup(started.process.wait)
        self.addCleanup(started.process.stdout.close)
        self.addCleanup(started.process.kill)
        return started

    def test_what_an_engine_is_told(self):
        config = self.config
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual((config["Entrypoint"], config["Cmd"]), (["sextant"], ["serve"]))
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", "sextant", "health"])
        chart = container(server(render()))
        self.assertEqual(set(config["ExposedPorts"]), {f"{port['containerPort']}/tcp" for port in chart["ports"]})
        self.assertEqual(set(config["Volumes"]), {"/cache"})
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
        labels = {name: labels[name] for name in ("licenses", "version", "revision", "source")}
        self.assertEqual(labels, {"licenses": "MIT OR Apache-2.0", "version": version, "revision": "0123abc",
                                  "source": "https://host.example/sextant"})

    def test_a_variable_overrides_no_file(self):
        """The settings of the image are a file, so that the chart's file, or anybody's, replaces all of them."""
        own = {name for name in self.environment if name.startswith("SEXTANT")}
        self.assertEqual(own, {"SEXTANT_CONFIG", "SEXTANT_CACHE"})

    def test_what_is_in_it(self):
        base, cpu, demo = self.workshop.layers("demo")
        expected = ("usr/local/", "etc/sextant/", "etc/ssl/certs/ca-certificates.crt")
        places = {"usr", "usr/local", "etc", "etc/sextant", "etc/ssl", "etc/ssl/certs", "cache", "models"}
        others = [name for name in cpu if name.rstrip("/") not in places and not name.startswith(expected)]
        self.assertEqual(others, [], "beside the server and its library")
        model = re.compile(r"safetensors|\.onnx|tokenizer|manifest")
        self.assertEqual(list(filter(model.search, cpu)), [], "a model in cpu")
        self.assertIn("usr/local/bin/sextant", cpu)
        self.assertEqual([name for name in demo if name.split("/")[0] != "models"], [], "more than the model in demo")
        self.assertIn("models/minilm/versions/1/manifest.toml", demo)
        programs = {name.split("/")[-1] for name in base + cpu + demo if re.search(r"(^|/)s?bin/[^/]+$", name)}
        self.assertIn("sh", programs, "which the jobs of the chart run in")
        tools = {"cargo", "rustc", "gcc", "cc", "ld", "make", "pip", "pip3", "python3", "curl", "wget"}
        self.assertEqual(programs & tools, set())
        self.assertEqual([name for name in cpu + demo if name.startswith("var/")], [], "lists and caches of packages")

    def test_a_change_in_the_sources_compiles_no_crate(self):
        crates, found, own = self.log.partition("COPY src src")
        self.assertTrue(found)
        self.assertGreater(len(re.findall("Compiling ", crates)), 100)
        self.assertEqual(set(re.findall(r"Compiling (\S+)", own)), {"sextant"})

    def embeds(self, started):
        with open(ROOT / "tests/data/minilm_reference.jsonl") as lines:
            known = json.loads(next(lines))
        end = time.monotonic() + 120
        health = self.config["Healthcheck"]["Test"][1:]
        while started.first() is None or started.execute(health).returncode:
            if started.process.poll() is not None or time.monotonic() > end:
                started.process.kill()
                self.fail(f"it does not get healthy: {started.end()}")
            time.sleep(0.5)
        self.assertEqual(started.execute(health).stdout, "alive\n")
        answer = started.post("http://127.0.0.1:8080/v1/embeddings", {"model": "minilm", "input": known["text"]})
        [vector] = [item["embedding"] for item in answer["data"]]
        self.assertEqual(len(vector), 384)
        product = sum(ours * theirs for ours, theirs in zip(vector, known["embedding"]))
        self.assertGreater(product / math.hypot(*vector) / math.hypot(*known["embedding"]), 0.99999)
        os.kill(started.first(), signal.SIGTERM)
        code, printed = started.end()
        self.assertEqual(code, 0, printed)

    def test_any_user_serves_from_a_read_only_root(self):
        for user in USERS:
            with self.subTest(user):
                # An engine makes the volumes that an image declares, also where the root is read-only. Not even /tmp can be written.
                volumes = list(self.config["Volumes"])
                self.embeds(self.start(user, self.config["Entrypoint"] + self.config["Cmd"], writable=volumes))

    def test_a_root_without_a_place_for_copies_is_told(self):
        started = self.start(USERS[0], self.config["Entrypoint"] + self.config["Cmd"])
        code, printed = started.end()
        self.assertEqual(code, 1)
        self.assertIn("cannot keep a version in the cache at `/cache/sextant`", printed)
        self.assertIn("`--cache-dir` names another place", printed)

    def test_the_root_is_read_only_and_the_volumes_are_not(self):
        """In what the other tests start as well: otherwise they would show nothing."""
        script = "id -u; touch /cache/mine /tmp/mine && echo written; touch /models/mine"
        started = self.start(USERS[1], ["sh", "-c", script], writable=["/cache", "/tmp"])
        code, printed = started.end()
        self.assertEqual(code, 1)
        self.assertEqual(printed.splitlines()[:2], ["54321", "written"])
        self.assertIn("Read-only file system", printed.splitlines()[2])

    def test_it_serves_as_the_chart_starts_it(self):
        documents = render()
        one = container(server(documents))
        settings = find(documents, "ConfigMap")["data"]["sextant.toml"]
        # The models are in the image.
        volumes = [mount["mountPath"] for mount in one["volumeMounts"] if mount["name"] in ("cache", "tmp")]
        self.assertEqual(len(volumes), 2)
        config = "/etc/sextant/config/sextant.toml"
        self.assertIn(f"--config={config}", one["args"])
        context = server(documents)["securityContext"]
        user = f"{context['runAsUser']}:{context['runAsGroup']}"
        self.embeds(self.start(user, one["command"] + one["args"], writable=volumes, files={config: settings}))


if __name__ == "__main__":
    unittest.main()
