"""A pod of the chart without a cluster: the real server with the settings, probes and drain that the chart gives it."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from chart import NAME, container, find, server
from machine import BINARY, environment, free_port, run


class Replica:
    """One server of the rendered `documents`. Its files lie in `folder`, its versions in `models`."""

    def __init__(self, documents: list[dict], folder: pathlib.Path, models: pathlib.Path) -> None:
        self.documents, self.folder, self.models = documents, folder, models
        self.folder.mkdir(exist_ok=True)
        self.data, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.pod = server(documents)
        self.container = container(self.pod)
        self.process: subprocess.Popen | None = None

    def here(self, text: str) -> str:
        """What the chart says, with this machine's places in place of a pod's."""
        for there, here in (
            ("0.0.0.0:8080", self.data),
            ("0.0.0.0:9090", self.admin),
            (f"{NAME}:8080", self.data),
            (f"{NAME}-admin:9090", self.admin),
            ("/etc/sextant/keys", str(self.folder)),
            ("/etc/sextant/config", str(self.folder)),
        ):
            text = text.replace(there, here)
        for there, here in (("models", self.models), ("cache", self.folder / "cache")):
            text = re.sub(rf'(^"?|(?<== "))/{there}\b', lambda match, here=here: match[1] + str(here), text)
        return text

    def start(self) -> None:
        """Starts it; `wait` knows when it is ready."""
        secrets = [document for document in self.documents if document["kind"] == "Secret" and "keys.toml" in document["stringData"]]
        for secret in secrets:
            (self.folder / "keys.toml").write_text(secret["stringData"]["keys.toml"])
        settings = find(self.documents, "ConfigMap")["data"]["sextant.toml"]
        (self.folder / "sextant.toml").write_text("\n".join(map(self.here, settings.splitlines())))
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([BINARY, *map(self.here, self.container["args"])], env=environment(), stdout=log, stderr=log)

    def probe(self, name: str) -> int | None:
        """The status that a probe of the pod gets, if it gets any."""
        probe = self.container[name]
        try:
            with urllib.request.urlopen(f"http://{self.admin}{probe['httpGet']['path']}", timeout=probe["timeoutSeconds"]) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait(self) -> None:
        """Until it is ready, at most as long as the kubelet waits for a start."""
        startup = self.container["startupProbe"]
        end = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while self.probe("startupProbe") != 200:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"it does not get ready: {self.log()[-2000:]}")
            time.sleep(0.5)

    def play(self, one: dict, **variables: str) -> str:
        """What another container of the chart prints; it runs with the server's image, so with its binary on the path."""
        path = f"{BINARY.parent}:{os.environ['PATH']}"
        finished = run(map(self.here, one.get("command", []) + one["args"]), PATH=path, **variables)
        if finished.returncode:
            raise AssertionError(finished.stdout + finished.stderr)
        return finished.stdout

    def stop(self, meanwhile: Callable[[float], None] = time.sleep) -> int:
        """Stops it as the kubelet does: the hook, the signal, the grace period, which begins before the hook. The exit code.

        `meanwhile` is given the seconds of the hook, and takes them.
        """
        end = time.monotonic() + self.pod["terminationGracePeriodSeconds"]
        meanwhile(self.container["lifecycle"]["preStop"]["sleep"]["seconds"])
        self.process.terminate()
        return self.process.wait(timeout=end - time.monotonic())

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
