"""A Prometheus and an Alertmanager for tests and previews. The one scrapes every second; both end when they are closed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from machine import free_port
from metrics import RULE_FILES

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# For tests: what these programs are called in the distribution.
PROGRAMS = ("prometheus", "prometheus-alertmanager")


def hurried(rules: str, times: int) -> str:
    """Rules whose windows, offsets and waits are so many times as short: an alarm of 10 minutes comes in 10 seconds at 60."""

    def shorter(match: re.Match) -> str:
        return f"{match[1]}{max(1000, int(match[2]) * SECONDS[match[3]] * 1000 // times)}ms"

    return re.sub(r"(\[|offset |for: )(\d+)([smhd])\b", shorter, rules)


class Program:
    """A program with an HTTP API, started in a folder of its own, ready."""

    def __init__(self, files: dict[str, str], command: list[str], ready: str) -> None:
        """In `command`, {folder} stands for the folder and {address} for where to listen; `ready` is a path."""
        self.data = tempfile.TemporaryDirectory(prefix="sextant-watch-")
        self.address = f"127.0.0.1:{free_port()}"
        for name, text in files.items():
            (Path(self.data.name) / name).write_text(text, encoding="utf-8")
        line = [word.format(folder=self.data.name, address=self.address) for word in command]
        self.log = open(Path(self.data.name) / "log", "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(line, stdout=self.log, stderr=subprocess.STDOUT, env=os.environ | {"GOMAXPROCS": "1"})
        self._await(f"http://{self.address}{ready}")

    def _await(self, url: str) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=1).close()
                return
            time.sleep(0.1)
            if self.process.poll() is not None:
                break
        self.log.seek(0)
        said = self.log.read()[-2000:]
        self.close()
        raise RuntimeError(f"{self.process.args[0]} does not start: {said}")

    def get(self, path: str, **parameters: Any) -> Any:
        """What the API answers; an error is the sentence it gives."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}?{query}", timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        self.log.close()
        self.data.cleanup()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Alertmanager(Program):
    """Keeps what it is told, and tells nobody."""

    def __init__(self) -> None:
        settings = {"route": {"receiver": "nobody", "group_wait": "1s"}, "receivers": [{"name": "nobody"}]}
        command = ["prometheus-alertmanager", "--config.file={folder}/alertmanager.yml", "--storage.path={folder}/data",
                   "--web.listen-address={address}", "--cluster.listen-address="]  # fmt: skip
        super().__init__({"alertmanager.yml": json.dumps(settings)}, command, "/-/ready")

    def alerts(self) -> list[dict[str, str]]:
        """Labels of the alerts that it was told of and that are not over."""
        return [alert["labels"] for alert in self.get("/api/v2/alerts")]


class Prometheus(Program):
    """Scrapes `targets`, whose job is `sextant` and whose namespace is `prod`, with the chart's rules."""

    def __init__(self, targets: list[str], alertmanager: Alertmanager | None = None, times: int = 1) -> None:
        """Its rules are `hurried` so many `times`."""
        files = {path.name: hurried(path.read_text(encoding="utf-8"), times) for path in RULE_FILES}
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": sorted(files),
            "scrape_configs": [{"job_name": "sextant", "static_configs": [{"targets": targets, "labels": {"namespace": "prod"}}]}],
        }
        if alertmanager:
            settings["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]}
        # JSON is YAML.
        files["prometheus.yml"] = json.dumps(settings)
        command = ["prometheus", "--config.file={folder}/prometheus.yml", "--storage.tsdb.path={folder}/data",
                   "--web.listen-address={address}"]  # fmt: skip
        super().__init__(files, command, "/-/ready")

    def get(self, path: str, **parameters: Any) -> Any:
        return super().get(f"/api/v1/{path}", **parameters)["data"]

    def query(self, expression: str) -> list[dict]:
        return self.get("query", query=expression)["result"]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict]:
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]
