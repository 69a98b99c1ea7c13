"""The chart, rendered: what the tests of this folder share."""

import functools
import hashlib
import json
import os
import subprocess
import tempfile
import unittest

import kubernetes_validate
import yaml
from machine import HELM, ROOT

CHART = ROOT / "helm" / "sextant"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
RELEASE, NAMESPACE = "blue", "embeddings"
NAME = "blue-sextant"

BUCKET = {"repository": {"bucket": {"url": "s3://models/sextant"}}}
# Keys by their names, which are their roles.
CLIENT_KEYS = {role: f"sxt_{role}".ljust(36, "0") for role in ("admin", "embed", "metrics")}
ENTRIES = {role: {"hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "roles": [role]} for role, key in CLIENT_KEYS.items()}
ENTRIES["embed"] |= {"models": ["minilm", "other"], "limits": {"requests_per_second": 1000, "tokens_per_second": 10000000}}
KEYS = {"keys": {"entries": ENTRIES, "clients": {"secret": "clients"}}}
IMPORT = {"import": {"enabled": True, "name": "minilm", "source": "organisation/name"}}
CANARY = {"canary": {"enabled": True, "model": "minilm", "version": 2, "reason": "half the size"}} | KEYS

# Each optional part, with what must then be there: kind and name behind the release's.
PARTS = {
    "service account": ({"serviceAccount": {"create": True, "name": ""}}, [("ServiceAccount", "")]),
    "volume": ({}, [("PersistentVolumeClaim", "")]),
    "keys": (KEYS, [("Secret", "-keys")]),
    "keys of one's own": ({"keys": {"existingSecret": "given"}, "monitor": {"enabled": True}}, []),
    "tls": ({"tls": {"secret": "given"}}, []),
    "tls of its own": (
        CANARY | {"tls": {"adminSecret": "given", "clientCaSecret": "given", "caSecret": "given", "clientSecret": "given"},
                  "monitor": {"enabled": True, "tlsConfig": {"serverName": "a"}}},
        [("ServiceMonitor", ""), ("Job", "-canary")],
    ),
    "bucket": (
        {"repository": {"bucket": {"url": "gs://b", "credentials": {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}, "existingSecret": "more"}}},
        [("Secret", "-bucket")],
    ),
    "autoscaling": (BUCKET | {"autoscaling": {"enabled": True}}, [("HorizontalPodAutoscaler", "")]),
    "keda": (BUCKET | {"keda": {"enabled": True, "prometheus": "http://p:9090", "authentication": "p"}}, [("ScaledObject", "")]),
    "disruption budget": ({"podDisruptionBudget": {"enabled": True}}, [("PodDisruptionBudget", "")]),
    "network policy": (
        {"networkPolicy": {"enabled": True, "dataFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "egress": {"enabled": True}}},
        [("NetworkPolicy", "")],
    ),
    "service monitor": ({"monitor": {"enabled": True}}, [("ServiceMonitor", "")]),
    "pod monitor": ({"monitor": {"enabled": True, "kind": "PodMonitor"}}, [("PodMonitor", "")]),
    "rules": ({"prometheusRule": {"enabled": True, "labels": {"release": "p"}}}, []),
    "dashboards": ({"dashboards": {"enabled": True}}, []),
    "ingress": (
        {"ingress": {"enabled": True, "className": "nginx", "hosts": [{"host": "a.example"}, {"host": "b.example", "path": "/e"}]}},
        [("Ingress", "")],
    ),
    "route": ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example"]}}, [("HTTPRoute", "")]),
    "gpu": ({"gpu": {"enabled": True, "runtimeClassName": "nvidia"}, "resources": {"limits": None}}, []),
    "gpus": ({"gpu": {"enabled": True, "count": 2, "device": "tensorrt"}, "config": {"device_memory": 8589934592}}, []),
    "gpu of the node's": ({"gpu": {"device": "cuda"}}, []),
    "import job": (BUCKET | IMPORT, [("Job", "-import-")]),
    "import container": ({"import": IMPORT["import"] | {"mode": "InitContainer"}}, []),
    "canary": (CANARY, [("Job", "-canary")]),
    "test": ({"test": {"enabled": True, "model": "minilm"}}, [("Pod", "-test")]),
    "cache volume": (BUCKET | {"cache": {"volume": {"persistentVolumeClaim": {"claimName": "cache"}}}}, []),
    "load balancer": ({"service": {"type": "LoadBalancer", "nodePort": 30080}}, []),
    "extras": (
        {
            "extraArgs": ["--threads=2"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "extraEnvFrom": [{"configMapRef": {"name": "c"}}],
            "extraVolumes": [{"name": "library", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "library", "mountPath": "/library"}],
            "imagePullSecrets": [{"name": "registry"}],
            "podAnnotations": {"a": "1"},
            "podLabels": {"b": "2"},
            "nodeSelector": {"c": "3"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "priorityClassName": "high",
            "image": {"digest": "sha256:" + "0" * 64},
            "jobs": {"nodeSelector": {"d": "4"}, "tolerations": [{"operator": "Exists"}], "annotations": {"e": "5"}},
        },
        [],
    ),
}
OFF = {
    "serviceAccount": {"create": False, "name": "given"},
    "repository": {"volume": {"existingClaim": "given"}},
    "podDisruptionBudget": {"enabled": False},
    "test": {"enabled": False},
    "topologySpreadConstraints": [],
    "drain": {"preStopSeconds": 0},
}


def merged(*all_values):
    """The later over the earlier, as Helm does it."""
    result = {}
    for values in all_values:
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def alone(values):
    """The rest off: the repository is a volume of somebody else's, unless the values say another."""
    return merged({key: off for key, off in OFF.items() if key != "repository" or key not in values}, values)


def helm(*arguments, values=None, files=(), chart=CHART, release=RELEASE):
    """Runs helm on the chart; returns the finished process."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values or {}, file)
        file.flush()
        command, *rest = arguments
        place = [str(chart)] if command == "lint" else [release, str(chart)]
        given = [f"--values={name}" for name in [*files, file.name]]
        line = [str(HELM), command, *place, f"--namespace={NAMESPACE}", *given, *rest]
        # Nothing of the user's own Helm.
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(line, capture_output=True, text=True, env={**os.environ, "HELM_CONFIG_HOME": home})


@functools.lru_cache(maxsize=None)
def rendered_text(values, files, release, chart):
    finished = helm("template", values=json.loads(values), files=files, release=release, chart=chart)
    if finished.returncode:
        raise AssertionError(finished.stderr)
    return finished.stdout


def render(values=None, files=(), release=RELEASE, chart=CHART):
    """The documents that the chart makes of the values."""
    text = rendered_text(json.dumps(values or {}), tuple(map(str, files)), release, chart)
    return [document for document in yaml.load_all(text, Loader=Strict) if document]


class Strict(yaml.CSafeLoader):
    """Refuses a key that is there twice: the second would hide the first."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise AssertionError(f"a key is there twice: {keys}{node.start_mark}")
        return super().construct_mapping(node, deep)


Strict.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))


def find(documents, kind, name=NAME):
    found = [document for document in documents if document["kind"] == kind and document["metadata"]["name"].startswith(name)]
    if len(found) != 1 and kind in ("Service", "Secret", "ConfigMap"):
        found = [document for document in found if document["metadata"]["name"] == name]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} of {kind} {name}")
    return found[0]


def pods(documents):
    """Name, labels and spec of every pod that the documents lead to."""
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if kind == "Pod":
            yield name, document["metadata"]["labels"], document["spec"]
        elif kind in ("Deployment", "Job"):
            template = document["spec"]["template"]
            yield name, template["metadata"]["labels"], template["spec"]


def server(documents):
    return find(documents, "Deployment")["spec"]["template"]["spec"]


def container(spec):
    [found] = spec["containers"]
    return found


def everything():
    """All parts that go together, on; and what cannot go together, in a second set."""
    apart = {"volume", "keda", "pod monitor", "import container", "keys of one's own", "gpu of the node's"}
    together = merged(*(values for name, (values, _) in PARTS.items() if name not in apart))
    other = merged(together, {"autoscaling": {"enabled": False}}, *(PARTS[name][0] for name in ("keda", "pod monitor", "import container")))
    return {"everything": together, "everything else": other, "nothing": OFF}


def cases():
    """Every set of values that must give a valid installation: name, values, files."""
    yield "default", {}, ()
    for example in EXAMPLES:
        yield example.name, {}, (example,)
    for name, (values, _) in PARTS.items():
        yield f"{name} on", values, ()
        yield f"{name} on, the rest off", alone(values), ()
    for name, values in everything().items():
        yield name, values, ()


# The package reads five megabytes of definitions for every document.
kubernetes_validate.utils.schema_contents = functools.lru_cache(maxsize=None)(kubernetes_validate.utils.schema_contents)


@functools.lru_cache(maxsize=None)
def check_document(text):
    kubernetes_validate.validate(json.loads(text), "1.37", strict=True)


class ChartTest(unittest.TestCase):
    maxDiff = None

    def for_each_case(self, check):
        for name, values, files in cases():
            with self.subTest(name):
                check(render(values, files))
