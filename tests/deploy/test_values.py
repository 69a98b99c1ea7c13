"""Values that are wrong are refused, and the README, the schema and values.yaml are of one mind."""

import json
import re
import unittest

import yaml
from chart import BUCKET, CANARY, CHART, ENTRIES, IMPORT, KEYS, ChartTest, helm, merged
from machine import ROOT

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# The chart itself gives these to the server.
OWN_SETTINGS = {"models", "cache_dir", "cache_dir_bytes", "device", "listen", "admin_listen", "keys_file", "keys", "drain_delay",
                "drain_timeout", "liveness_deadline", "tls"}

UNKNOWN = "additional properties|not allowed"
REFUSED = [
    ({"replicas": 3}, UNKNOWN),
    ({"image": {"name": "sextant"}}, UNKNOWN),
    ({"repository": {"bucket": {"region": "x"}}}, UNKNOWN),
    ({"config": {"max_input": 3}}, UNKNOWN),
    ({"config": {"listen": "0.0.0.0:80"}}, UNKNOWN),
    ({"config": {"guard": {"cosine": 0.9}}}, UNKNOWN),
    ({"probes": {"liveness": {"timeoutSeconds": 3}}}, UNKNOWN),
    ({"autoscaling": {"targetCPU": 3}}, UNKNOWN),
    ({"canary": {"weight": 10}}, UNKNOWN),
    ({"networkPolicy": {"egress": {"to": []}}}, UNKNOWN),
    ({"resources": {"limit": {}}}, UNKNOWN),
    ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
    ({"replicaCount": "three"}, "replicaCount"),
    ({"replicaCount": -1}, "replicaCount"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"repository": {"bucket": {"url": "ftp://host/a"}}}, "url"),
    ({"repository": {"bucket": {"credentials": {"PASSWORD": "x"}}}}, "credentials.*PASSWORD"),
    ({"repository": {"volume": {"accessModes": ["ReadOnlyMany"]}}}, "accessModes"),
    ({"cache": {"sizeLimit": "big"}}, "sizeLimit"),
    ({"config": {"max_inputs": "many"}}, "max_inputs"),
    ({"config": {"max_inputs": 1.5}}, "max_inputs"),
    ({"config": {"sessions": "all"}}, "sessions"),
    ({"config": {"sync_interval": 2}}, "sync_interval"),
    ({"config": {"truncate": "middle"}}, "truncate"),
    ({"config": {"gate": {"min_probe_cosine": 1.5}}}, "min_probe_cosine"),
    ({"config": {"drift": {"learn": 10}}}, "learn"),
    ({"config": {"connections": {"idle_timeout": 75}}}, "idle_timeout"),
    ({"config": {"tls": {"cert": "/a"}}}, UNKNOWN),
    ({"config": {"otlp_endpoint": "collector:4318"}}, "otlp_endpoint"),
    ({"config": {"trace_sample": 10}}, "trace_sample"),
    ({"ports": {"data": 80}}, "data"),
    ({"service": {"type": "ExternalName"}}, "type"),
    ({"service": {"port": 70000}}, "port"),
    ({"keys": {"entries": {"alice": {"hash": "0123456789abcdef", "roles": ["embed"]}}}}, "hash"),
    ({"keys": {"entries": {"a:b": ENTRIES["embed"]}}}, "a:b"),
    ({"keys": {"entries": {"a": ENTRIES["embed"] | {"roles": []}}}}, "roles"),
    ({"keys": {"entries": {"a": ENTRIES["embed"] | {"roles": ["root"]}}}}, "roles"),
    ({"keys": {"entries": {"a": ENTRIES["embed"] | {"model": ["minilm"]}}}}, UNKNOWN),
    ({"keys": {"entries": {"a": ENTRIES["embed"] | {"limits": {"tokens_per_second": 0}}}}}, "tokens_per_second"),
    ({"gpu": {"count": 0}}, "count"),
    ({"gpu": {"device": "gpu"}}, "device"),
    ({"gpu": {"device": "cuda:0,tensorrt:1"}}, "device"),
    ({"gpu": {"device": "cuda,cuda"}}, "device"),
    ({"gpu": {"device": "cpu:0"}}, "device"),
    ({"config": {"device": "cuda"}}, UNKNOWN),
    ({"config": {"device_memory": 0}}, "device_memory"),
    ({"config": {"device_memory": "8Gi"}}, "device_memory"),
    ({"config": {"tensorrt_cache": "engines"}}, "tensorrt_cache"),
    ({"config": {"gate": {"min_probe_cosine_gpu": 1.5}}}, "min_probe_cosine_gpu"),
    ({"autoscaling": {"enabled": "yes"}}, "enabled"),
    ({"podDisruptionBudget": {"minAvailable": "half"}}, "minAvailable"),
    ({"monitor": {"kind": "Probe"}}, "kind"),
    ({"monitor": {"interval": "15 seconds"}}, "interval"),
    ({"import": {"precision": "int4"}}, "precision"),
    ({"canary": {"percent": 0}}, "percent"),
    ({"canary": {"percent": 101}}, "percent"),
    ({"canary": {"version": "minilm@2"}}, "version"),
    ({"command": ["sextant; rm"]}, "command"),
    # Right one by one, wrong together.
    ({"autoscaling": {"enabled": True}, "keda": {"enabled": True, "prometheus": "http://p"}} | BUCKET, "two autoscalers"),
    (BUCKET | {"keda": {"enabled": True}}, "keda.prometheus"),
    (BUCKET | {"autoscaling": {"enabled": True, "cpu": None, "queueTokens": None}}, "nothing to scale by"),
    (BUCKET | {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}, "minReplicas"),
    ({"replicaCount": 2}, "cannot share"),
    ({"autoscaling": {"enabled": True}}, "cannot share"),
    ({"podDisruptionBudget": {"minAvailable": 1}}, "one of minAvailable"),
    ({"podDisruptionBudget": {"maxUnavailable": None}}, "one of minAvailable"),
    (merged(KEYS, {"keys": {"existingSecret": "x"}}), "which of them"),
    ({"keys": {"entries": ENTRIES}, "monitor": {"enabled": True}}, "monitor needs keys.clients.secret"),
    (IMPORT, "InitContainer"),
    (BUCKET | {"import": {"enabled": True}}, "a name and a source"),
    (BUCKET | IMPORT | {"config": {"require_signed": "/etc/trusted/release.pub"}}, "import.args a --sign FILE"),
    (CANARY | {"keys": {}}, "canary needs keys"),
    (merged(CANARY, {"keys": {"clients": {"secret": ""}}}), "keys.clients.secret"),
    (merged(CANARY, {"canary": {"reason": ""}}), "a reason"),
    (merged(CANARY, {"canary": {"percent": None}}), "canary.percent or"),
    ({"tls": {"clientCaSecret": "x"}}, "without TLS"),
    (CANARY | {"tls": {"secret": "x", "clientCaSecret": "y"}}, "tls.clientSecret"),
    ({"httpRoute": {"enabled": True}}, "parentRefs"),
    ({"gpu": {"enabled": True, "device": "cpu"}}, "may leave it idle"),
    ({"gpu": {"enabled": True, "device": "auto"}}, "may leave it idle"),
    ({"gpu": {"enabled": True, "device": "cuda:0,cuda:1"}}, "names 2 and gpu.count reserves 1"),
    ({"gpu": {"enabled": True, "count": 2, "device": "cuda:0"}}, "names 1 and gpu.count reserves 2"),
    ({"gpu": {"enabled": True, "count": 2, "device": "cuda:0,cuda:0"}}, "named twice"),
    (merged(BUCKET, IMPORT, {"gpu": {"enabled": True}, "import": {"precision": "int8"}}), "int8 does not run on cuda"),
    ({"ports": {"data": 9090}}, "both 9090"),
    ({"image": {"repository": "host:5000/sextant:1.0"}}, "image.tag"),
    ({"service": {"nodePort": 30080}}, "service.type"),
    ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
    ({"strategy": {"type": "recreate"}}, "type"),
    ({"replicaCount": 3, "repository": {"volume": {"existingClaim": "mine"}}}, "cannot share"),
    (merged(BUCKET, {"repository": {"volume": {"existingClaim": "mine"}}}), "which of them"),
    ({"repository": {"bucket": {"existingSecret": "mine"}}}, "no url"),
    (merged(BUCKET, {"repository": {"bucket": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}}), "which is secret"),
    (merged(CANARY, {"canary": {"model": "m@2"}}), "canary.version"),
    ({"import": {"name": "my model"}}, "name"),
    ({"ingress": {"enabled": True}}, "hosts"),
]


def leaves(values, path=""):
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from leaves(value, name)
        else:
            yield name, value


class Refused(unittest.TestCase):
    def test_what_is_wrong_is_refused_and_named(self):
        for values, expected in REFUSED:
            with self.subTest(values):
                finished = helm("template", values=values)
                self.assertNotEqual(finished.returncode, 0, "this was taken")
                self.assertRegex(finished.stderr, expected)

    def test_as_a_part_of_another_chart_it_gets_global_values(self):
        self.assertEqual(helm("template", values={"global": {"a": 1}}).returncode, 0)


class OneMind(ChartTest):
    def test_the_readme_has_every_value_with_its_default(self):
        rows = re.findall(r"^\| `([^`]+)` \| `([^`]*)` \| (.+) \|$", (CHART / "README.md").read_text(), re.M)
        self.assertEqual(len(rows), len({name for name, _, _ in rows}), "a value is there twice")
        written = {name: json.loads(default) for name, default, _ in rows}
        self.assertEqual(written, dict(leaves(VALUES)))
        for name, _, told in rows:
            self.assertGreater(len(told), 3, name)

    def test_the_schema_has_the_keys_of_the_values(self):
        def check(values, schema, path):
            schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
            if "properties" not in schema:
                return
            self.assertIs(schema.get("additionalProperties"), False, path)
            for key, value in values.items():
                self.assertIn(key, schema["properties"], path)
                if isinstance(value, dict):
                    check(value, schema["properties"][key], f"{path}.{key}")
            # Those without a default: the settings, and what Kubernetes has for resources and probes.
            free = {"config", "resources", "probes"} & set(path.split("."))
            if not free:
                self.assertLessEqual(schema["properties"].keys() - {"global"}, values.keys(), path)

        check(VALUES, SCHEMA, "values")

    def test_config_has_every_setting_of_the_server(self):
        def fields(file, struct):
            source = (ROOT / "src/config" / file).read_text()
            body = re.search(rf"pub struct {struct} \{{(.*?)^\}}", source, re.S | re.M).group(1)
            return set(re.findall(r"^    pub (\w+):", body, re.M))

        config = SCHEMA["properties"]["config"]["properties"]
        self.assertEqual(fields("settings.rs", "Settings") - OWN_SETTINGS, config.keys())
        for table in ("gate", "guard", "drift", "connections"):
            self.assertEqual(fields(f"{table}.rs", f"{table.capitalize()}Settings"), config[table]["properties"].keys())

    def test_the_chart_is_of_the_version_that_cargo_has(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], version)

    def test_the_readmes_installation_renders(self):
        text = (CHART / "README.md").read_text()
        values = yaml.safe_load(re.search(r"<<'END'\n(.*?)^END", text, re.S | re.M).group(1))
        self.assertEqual(helm("template", values=values).returncode, 0)
        for block in re.findall(r"```yaml\n(.*?)```", text, re.S):
            values = yaml.safe_load(block)
            if "rules" not in values:
                finished = helm("template", values=values)
                self.assertEqual(finished.returncode, 0, finished.stderr)
        sets = re.search(r"--set image\.repository=(\S+) .*?--set (\S+)", text, re.S).groups()
        finished = helm("template", f"--set=image.repository={sets[0]}", f"--set={sets[1]}")
        self.assertEqual(finished.returncode, 0, finished.stderr)


if __name__ == "__main__":
    unittest.main()
