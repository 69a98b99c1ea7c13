"""What the chart gives to the server, given to the server: its settings, and the commands of its jobs."""

import json
import pathlib
import tempfile
import tomllib
import unittest

from chart import BUCKET, CANARY, EXAMPLES, IMPORT, KEYS, ChartTest, container, find, merged, render, server
from machine import BINARY, needs, run

# RFC 8410, 10.1.
TRUSTED = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""

ALL_SETTINGS = {
    "listenAddress": "::",
    "config": {
        "onnxruntime": '/opt/a "b" <c> é/lib.so', "default_model": "minilm", "sync_interval": "1m 30s", "truncate": "error",
        "recheck_interval": "1h",
        "require_signed": "/etc/sextant/trusted.pem",
        "sessions": "auto", "threads": 3, "lone_threads": 0, "max_batch_tokens": 512, "device_memory": "auto",
        "tensorrt_cache": "/cache/tensorrt", "max_queue_tokens": 262144, "bulk_share": 0.1,
        "cache_bytes": 34359738368, "max_requests": 4096, "max_inputs": 2048, "max_input_bytes": 1048576, "max_body_bytes": 33554432,
        "log_format": "json", "log": "info,sextant=debug",
        "gate": {"min_probe_cosine": 0.9999, "min_probe_cosine_int8": 1, "min_probe_cosine_gpu": 0.99999, "min_probe_cosine_gpu_fp16": 0.999,
                 "max_length_difference": 0.1, "max_batch_difference": 0.00001, "min_claim_cosine": -1, "min_claim_overlap": 0},
        "guard": {"window": "10s", "windows": 3, "requests": 30, "callers": 3, "max_error_share": 0.02, "min_cosine": 0.99, "max_slowdown": 3,
                  "pairs_per_second": 0.5},
        "drift": {"learn": 20000, "expected_run_time": 100000000, "per_second": 7},
        "connections": {"max_connections": 10000, "max_header_bytes": 8192, "max_headers": 50, "max_streams": 10,
                        "max_held_bytes": 134217728, "handshake_timeout": "5s", "head_timeout": "5s", "body_stall_timeout": "5s",
                        "body_timeout": "2m", "write_timeout": "1m", "idle_timeout": "10m 20s"},
    },
}


def toml(documents):
    return find(documents, "ConfigMap")["data"]["sextant.toml"]


class Settings(ChartTest):
    def test_the_file_says_what_the_values_say(self):
        written = tomllib.loads(toml(render(merged(ALL_SETTINGS, KEYS))))
        for name, value in ALL_SETTINGS["config"].items():
            found = written.pop(name)
            # As text: 2048.0 is 2048 for Python, and no whole number for the server.
            self.assertEqual(json.dumps(found, sort_keys=True), json.dumps(value, sort_keys=True))
        self.assertEqual(written, {
            "models": "/models", "cache_dir": "/cache/versions", "cache_dir_bytes": 21474836480, "device": "cpu",
            "listen": "[::]:8080", "admin_listen": "[::]:9090", "keys_file": "/etc/sextant/keys/keys.toml", "drain_delay": "5s",
            "drain_timeout": "30s", "liveness_deadline": "10s",
        })
        self.assertEqual(tomllib.loads(toml(render(BUCKET)))["models"], "s3://models/sextant")

    def test_a_pod_computes_on_every_gpu_that_it_reserves_and_on_no_other(self):
        for gpu, device in (
            # Not `auto`, which would take what the node shows to every container.
            ({}, "cpu"),
            ({"count": 2}, "cpu"),
            ({"device": "cuda"}, "cuda"),
            ({"device": "auto"}, "auto"),
            ({"enabled": True}, "cuda:0"),
            ({"enabled": True, "device": "tensorrt"}, "tensorrt:0"),
            ({"enabled": True, "device": "cuda:0"}, "cuda:0"),
            ({"enabled": True, "count": 3}, "cuda:0,cuda:1,cuda:2"),
            ({"enabled": True, "count": 2, "device": "tensorrt"}, "tensorrt:0,tensorrt:1"),
            ({"enabled": True, "count": 2, "device": "cuda:1,cuda:0"}, "cuda:1,cuda:0"),
        ):
            with self.subTest(gpu):
                self.assertEqual(tomllib.loads(toml(render({"gpu": gpu})))["device"], device)

    def test_the_file_is_where_the_server_looks(self):
        one = container(server(render(KEYS)))
        self.assertEqual(one["args"], ["serve", "--config=/etc/sextant/config/sextant.toml"])
        mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
        self.assertEqual((mounts["config"], mounts["keys"]), ("/etc/sextant/config", "/etc/sextant/keys"))

    @needs(BINARY)
    def test_the_server_takes_the_file(self):
        sets = [({}, ()), (KEYS, ()), (BUCKET, ()), (ALL_SETTINGS, ())] + [({}, (example,)) for example in EXAMPLES]
        for values, files in sets:
            with self.subTest(values or files), tempfile.TemporaryDirectory() as folder:
                text = toml(render(values, files))
                keys = pathlib.Path(folder) / "keys.toml"
                keys.write_text(find(render(KEYS), "Secret", "blue-sextant-keys")["stringData"]["keys.toml"])
                trusted = pathlib.Path(folder) / "trusted.pem"
                trusted.write_text(TRUSTED)
                file = pathlib.Path(folder) / "sextant.toml"
                text_here = text.replace("/etc/sextant/keys/keys.toml", str(keys)).replace("/etc/sextant/trusted.pem", str(trusted))
                file.write_text(text_here)
                finished = run([BINARY, "serve", "--config", file, "--print-config"])
                self.assertEqual(finished.returncode, 0, finished.stderr)
                printed = tomllib.loads(finished.stdout)
                written = tomllib.loads(text)
                # Where they lie differs, and a time has several spellings.
                for settings in (printed, written):
                    settings.pop("keys_file", None)
                    settings.pop("require_signed", None)
                    settings.pop("sync_interval", None)
                self.assertEqual(merged(printed, written), printed)


class Jobs(ChartTest):
    """The script of the jobs, in a real shell, with a `sextant` that notes what it is asked."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def play(self, job, history, code=0, answer="", answer_code=0):
        """The exit code of `job`, and the command that it ran, where `sextant history` prints `history`."""
        (self.folder / "history").write_text(history)
        (self.folder / "answer").write_text(answer)
        program = self.folder / "sextant"
        program.write_text(
            f'#!/bin/sh\ncd {self.folder}\n[ "$1" = history ] && {{ cat history; printf "%s\\n" "$@" > asked; exit {code}; }}\n'
            f'printf "%s\\n" "$@" > ran\ncat answer\nexit {answer_code}\n'
        )
        program.chmod(0o755)
        (self.folder / "ran").unlink(missing_ok=True)
        finished = run(job["command"] + job["args"], PATH=f"{self.folder}:/usr/bin:/bin")
        ran = (self.folder / "ran").read_text().splitlines() if (self.folder / "ran").exists() else None
        return finished.returncode, ran

    def job(self, values):
        return container(find(render(values), "Job")["spec"]["template"]["spec"])

    def test_an_import_runs_once(self):
        job = self.job(BUCKET | IMPORT)
        code, ran = self.play(job, "error: no version of `minilm` was ever rolled out", code=1)
        *command, reason = ran
        self.assertEqual(code, 0)
        self.assertEqual(command, ["import", "organisation/name", "--models", "s3://models/sextant", "--name", "minilm", "--precision",
                                   "fp32", "--activate", "--reason"])
        self.assertRegex(reason, r"^installed \(helm:[0-9a-f]{12}\)$")
        asked = (self.folder / "asked").read_text().splitlines()
        self.assertEqual(asked, ["history", "--json", "minilm", "--models", "s3://models/sextant"])
        self.assertEqual(self.play(job, json.dumps({"documents": [{"reason": reason}]})), (0, None))
        # Another model's log, another import's mark.
        self.assertEqual(self.play(job, '{"documents": [{"reason": "installed (helm:0)"}]}')[1][0], "import")
        other = self.job(merged(BUCKET, IMPORT, {"import": {"source": "organisation/other"}}))
        self.assertNotEqual(self.play(other, "{}")[1][-1], reason)

    def test_a_log_that_cannot_be_read_is_not_taken_for_an_empty_one(self):
        self.assertEqual(self.play(self.job(BUCKET | IMPORT), "error: the bucket does not answer", code=1), (1, None))

    def test_what_cannot_be_repeated_is_not(self):
        job = find(render(BUCKET | IMPORT), "Job")["spec"]
        one = container(job["template"]["spec"])
        self.assertEqual(self.play(one, "{}", answer="minilm@2 is imported, but it writes", answer_code=1)[0], 3)
        self.assertEqual(self.play(one, "{}", answer="the hub does not answer", answer_code=1)[0], 1)
        self.assertEqual(self.play(one, "{}", answer="gate", answer_code=2)[0], 2)
        [rule] = job["podFailurePolicy"]["rules"]
        self.assertEqual((rule["action"], rule["onExitCodes"]["values"]), ("FailJob", [2, 3]))
        self.assertEqual(rule["onExitCodes"]["containerName"], one["name"])

    def test_a_container_imports_only_the_first_version(self):
        [job] = server(render({"import": IMPORT["import"] | {"mode": "InitContainer"}}))["initContainers"]
        self.assertEqual(self.play(job, '{"documents": [{"reason": "make setup"}]}'), (0, None))
        self.assertEqual(self.play(job, "error: no version of `minilm` was ever rolled out", code=1)[1][0], "import")

    def test_a_canary_is_one_document_of_the_log(self):
        trial = self.job(CANARY)
        at = ["--server", "http://blue-sextant-admin:9090"]
        code, ran = self.play(trial, "{}")
        self.assertEqual((code, ran[:-1]), (0, ["rollout", "minilm@2", "--canary-percent", "10", *at, "--reason"]))
        self.assertRegex(ran[-1], r"^half the size \(helm:[0-9a-f]{12}\)$")
        self.assertEqual(self.play(trial, ran[-1]), (0, None))
        for change, expected in (
            ({"percent": 50, "shadowPercent": 5}, ["rollout", "minilm@2", "--canary-percent", "50", "--shadow-percent", "5"]),
            ({"percent": None, "shadowPercent": 20}, ["rollout", "minilm@2", "--shadow-percent", "20"]),
            ({"action": "promote"}, ["promote", "minilm@2"]),
            ({"action": "rollback"}, ["rollback", "minilm", "--of", "2"]),
        ):
            _, other = self.play(self.job(merged(CANARY, {"canary": change})), ran[-1])
            self.assertEqual(other[:-4], expected)

    def test_a_reason_with_quotes_stays_one_argument(self):
        reason = "it's \"half\" $(the) `size`; really"
        _, ran = self.play(self.job(merged(CANARY, {"canary": {"reason": reason}})), "{}")
        self.assertEqual(ran[-1].rsplit(" ", 1)[0], reason)

    @needs(BINARY)
    def test_the_server_knows_these_commands(self):
        """None of them is wrong usage, which would be 2: nothing answers there, so they fail with 1."""
        def at_nobody(text):
            return text.replace("blue-sextant-admin:9090", "127.0.0.1:9").replace("blue-sextant:8080", "127.0.0.1:9")

        commands = []
        for change in ({}, {"percent": 5, "shadowPercent": 5}, {"action": "promote"}, {"action": "rollback"}):
            commands.append(self.play(self.job(merged(CANARY, {"canary": change})), "{}")[1])
        [probe] = [d for d in render({"test": {"model": "minilm"}}) if d["kind"] == "Pod"]
        commands.append(container(probe["spec"])["args"])
        for command in commands:
            finished = run([BINARY, *map(at_nobody, command)])
            self.assertEqual(finished.returncode, 1, finished.stderr)
            self.assertIn("answer", finished.stderr)
        # A checkpoint that is a file is refused after the arguments are understood, and before anything is fetched; the
        # runtime is looked for before that.
        _, command = self.play(self.job(merged(BUCKET, IMPORT, {"import": {"args": ["--max-tokens", "128"]}})), "{}")
        models = str(self.folder / "models")
        command = [models if word.startswith("s3://") else word for word in command]
        command[1] = str(self.folder / "history")
        finished = run([BINARY, *command])
        self.assertRegex(finished.stderr, "is no directory|no ONNX Runtime library found")

    @needs(BINARY)
    def test_a_model_without_a_log_is_told_as_the_script_expects(self):
        finished = run([BINARY, "history", "--json", "minilm", "--models", self.folder])
        self.assertEqual(finished.returncode, 1)
        self.assertIn("was ever rolled out", finished.stderr)


if __name__ == "__main__":
    unittest.main()
