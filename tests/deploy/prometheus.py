"""A Prometheus for tests and previews: scrapes every second, has the project's rules, and ends when it is closed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from metrics import RULES


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Scrapes `targets`; their job is `sextant`, their namespace `prod`."""

    def __init__(self, targets: list[str]) -> None:
        self.data = tempfile.TemporaryDirectory(prefix="sextant-prometheus-")
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in RULES],
            "scrape_configs": [{"job_name": "sextant", "static_configs": [{"targets": targets, "labels": {"namespace": "prod"}}]}],
        }
        folder = Path(self.data.name)
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(settings))
        self.log = open(folder / "log", "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdout=self.log, stderr=subprocess.STDOUT, env=os.environ | {"GOMAXPROCS": "1"},
        )  # fmt: skip
        self._await()

    def _await(self) -> None:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
            if self.process.poll() is not None:
                break
        self.log.seek(0)
        said = self.log.read()[-2000:]
        self.close()
        raise RuntimeError(f"Prometheus does not start: {said}")

    def get(self, path: str, **parameters: Any) -> Any:
        """What the API answers; an error is the sentence it gives."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None

    def query(self, expression: str) -> list[dict]:
        return self.get("query", query=expression)["result"]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict]:
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        self.log.close()
        self.data.cleanup()

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
