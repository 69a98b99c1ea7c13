"""What the chart makes is valid, for the defaults, every example and every part on and off."""

import json
import pathlib
import shutil
import tempfile
import tomllib
import unittest

import yaml
from chart import (CHART, ENTRIES, KEYS, NAME, NAMESPACE, OFF, PARTS, ChartTest, alone, cases, check_document, container, everything, find,
                   helm, merged, pods, render, server)
from machine import ROOT

# Kinds of others' APIs, with what their controllers cannot do without.
FOREIGN = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "triggers"}),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "hostnames", "rules"}),
}


def dashboards(chart):
    documents = render(PARTS["dashboards"][0], chart=chart)
    return [document for document in documents if document["metadata"]["labels"]["app.kubernetes.io/component"] == "dashboard"]


class Valid(ChartTest):
    def test_lint_finds_nothing(self):
        for name, values, files in cases():
            with self.subTest(name):
                finished = helm("lint", "--strict", values=values, files=files)
                self.assertEqual(finished.returncode, 0, finished.stdout + finished.stderr)
                self.assertNotIn("[WARNING]", finished.stdout)

    def test_every_document_is_one_of_the_kubernetes_api(self):
        def check(documents):
            self.assertGreater(len(documents), 3)
            for document in documents:
                if document["kind"] in FOREIGN:
                    version, fields = FOREIGN[document["kind"]]
                    self.assertEqual(document["apiVersion"], version)
                    self.assertLessEqual(document["spec"].keys(), fields)
                else:
                    check_document(json.dumps(document, sort_keys=True))

        self.for_each_case(check)

    def test_the_check_itself_finds_mistakes(self):
        [service] = [document for document in render() if document["metadata"]["name"] == f"{NAME}-admin"]
        for wrong in ({"portz": []}, {"ports": [{"port": "admin"}]}):
            with self.assertRaises(Exception):
                check_document(json.dumps(merged(service, {"spec": wrong})))

    def test_names_are_unique_and_short_enough(self):
        long = merged(everything()["everything"], {"fullnameOverride": "a" * 60})
        for values in [*everything().values(), long]:
            documents = render(values)
            names = [(document["kind"], document["metadata"]["name"]) for document in documents]
            self.assertEqual(len(names), len(set(names)))
            for kind, name in names:
                self.assertRegex(name, r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", kind)

    def test_a_release_with_a_number_for_a_name(self):
        for document in render(release="12"):
            self.assertEqual(document["metadata"]["labels"]["app.kubernetes.io/instance"], "12")

    def test_each_part_is_there_when_it_is_on_and_not_when_it_is_off(self):
        off = {(document["kind"], document["metadata"]["name"]) for document in render(OFF)}
        self.assertEqual(off, {("Service", NAME), ("Service", f"{NAME}-admin"), ("ConfigMap", NAME), ("Deployment", NAME)})
        for part, (values, expected) in PARTS.items():
            with self.subTest(part):
                values = alone(values)
                if part == "volume":
                    values["repository"] = {}
                found = {(d["kind"], d["metadata"]["name"]) for d in render(values)} - off
                for kind, suffix in expected:
                    [name] = [name for one, name in found if one == kind]
                    self.assertTrue(name == NAME + suffix or suffix == "-import-" and name.startswith(NAME + suffix), name)

    def test_the_rules_link_to_the_runbook_that_the_values_name(self):
        address = "https://wiki.example.org/runbook"
        documents = render(merged(PARTS["rules"][0], {"prometheusRule": {"runbook": address}}))
        paths = sorted((CHART / "files/rules").glob("*.yaml"))
        self.assertGreaterEqual(len(paths), 3)
        for path in paths:
            rule = find(documents, "PrometheusRule", f"{NAME}-{path.stem.replace('.', '-')}")
            self.assertEqual(rule["spec"], yaml.safe_load(path.read_text().replace("docs/runbook.md#", f"{address}#")))
            self.assertEqual(rule["metadata"]["labels"]["release"], "p")

    def test_a_dashboard_is_a_labelled_config_map(self):
        with tempfile.TemporaryDirectory() as folder:
            bare, chart = pathlib.Path(folder) / "bare", pathlib.Path(folder) / "chart"
            for copy in (bare, chart):
                shutil.copytree(CHART, copy)
                shutil.rmtree(copy / "files/dashboards", ignore_errors=True)
            self.assertEqual(dashboards(bare), [])
            (chart / "files/dashboards").mkdir()
            # Grafana's own braces are not Helm's.
            own = chart / "files/dashboards/extra.json"
            own.write_text('{"legend": "{{model}}@{{version}}",\n\n "é": 1}\n')
            for path in (CHART / "files/dashboards").glob("*.json"):
                shutil.copy(path, chart / "files/dashboards")
            paths = sorted((chart / "files/dashboards").glob("*.json"))
            found = dashboards(chart)
            self.assertEqual(sorted(name for one in found for name in one["data"]), [path.name for path in paths])
            for one in found:
                [(name, text)] = one["data"].items()
                self.assertEqual(one["metadata"]["name"], f"{NAME}-{name.removesuffix('.json')}-dashboard")
                self.assertEqual(one["metadata"]["labels"]["grafana_dashboard"], "1")
                self.assertEqual(json.loads(text), json.loads((chart / "files/dashboards" / name).read_text()))
                check_document(json.dumps(one, sort_keys=True))

    def test_the_notes_say_what_the_pods_compute_on(self):
        def notes(gpu):
            finished = helm("install", "--dry-run=client", values={"gpu": gpu})
            self.assertEqual(finished.returncode, 0, finished.stderr)
            return finished.stdout.split("NOTES:\n")[1]

        self.assertNotRegex(notes({}), "compute on|GPU")
        reserved, shown = notes({"enabled": True, "count": 2}), notes({"device": "tensorrt"})
        self.assertIn("compute on cuda:0,cuda:1 and do not start without", reserved)
        self.assertNotIn("reserve no GPU", reserved)
        self.assertIn("compute on tensorrt, and gpu.enabled is false", shown)

    def test_the_notes_name_what_is_there(self):
        for name, values, files in cases():
            with self.subTest(name):
                finished = helm("install", "--dry-run=client", values=values, files=files)
                self.assertEqual(finished.returncode, 0, finished.stderr)
                notes = finished.stdout.split("NOTES:\n")[1]
                self.assertIn(f"rollout status deployment/{NAME}", notes)
                self.assertIn("port-forward service/", notes)
                self.assertNotRegex(notes, r"<no value>|%!|map\[|\n\n\n")


class Wiring(ChartTest):
    """One object names another: the names must meet."""

    def test_selectors_find_the_servers_pods_and_no_others(self):
        def check(documents):
            servers = {name: labels for name, labels, _ in pods(documents) if name == NAME}
            others = [labels for name, labels, _ in pods(documents) if name != NAME]
            services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
            selectors = [service["spec"]["selector"] for service in services.values()]
            for document in documents:
                spec = document.get("spec", {})
                if document["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
                    selectors.append(spec["selector"]["matchLabels"])
                if document["kind"] == "NetworkPolicy":
                    selectors.append(spec["podSelector"]["matchLabels"])
                if document["kind"] == "ServiceMonitor":
                    labels = spec["selector"]["matchLabels"].items()
                    found = [name for name, s in services.items() if labels <= s["metadata"]["labels"].items()]
                    self.assertEqual(found, [f"{NAME}-admin"])
            for constraint in server(documents).get("topologySpreadConstraints", []):
                selectors.append(constraint["labelSelector"]["matchLabels"])
            for selector in selectors:
                self.assertLessEqual(selector.items(), servers[NAME].items())
                self.assertFalse([labels for labels in others if selector.items() <= labels.items()])

        self.for_each_case(check)

    def test_ports_have_names_that_are_there(self):
        def check(documents):
            spec = container(server(documents))
            ports = {port["name"]: port["containerPort"] for port in spec["ports"]}
            self.assertEqual(ports.keys(), {"data", "admin"})
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = dict(spec[probe]["httpGet"])
                # Both ports' scheme is one matter: test_certificates_lie_where_they_are_looked_for.
                asked.pop("scheme", None)
                self.assertEqual(asked, {"port": "admin", "path": "/livez" if probe == "livenessProbe" else "/readyz"})
            targets = {}
            for service in (d for d in documents if d["kind"] == "Service"):
                [port] = service["spec"]["ports"]
                targets[service["metadata"]["name"]] = port["targetPort"]
                if port["targetPort"] == "admin":
                    self.assertEqual(service["spec"]["type"], "ClusterIP")
            self.assertEqual(targets, {NAME: "data", f"{NAME}-admin": "admin"})

        self.for_each_case(check)

    def test_the_routes_of_the_probes_are_the_servers(self):
        routes = (ROOT / "src/http.rs").read_text()
        for path in ("/livez", "/readyz", "/metrics"):
            self.assertIn(f'.get("{path}"', routes)

    def test_what_scales_names_the_deployment(self):
        def check(documents):
            scaled = [d for d in documents if d["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
            for document in scaled:
                target = document["spec"]["scaleTargetRef"]
                self.assertEqual(target, {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME})
            # A number of replicas in the Deployment would undo the autoscaler's with every upgrade.
            self.assertEqual("replicas" in find(documents, "Deployment")["spec"], not scaled)

        self.for_each_case(check)
        scaler = find(render(PARTS["autoscaling"][0]), "HorizontalPodAutoscaler")["spec"]
        self.assertEqual([metric["type"] for metric in scaler["metrics"]], ["Resource", "Pods"])
        self.assertEqual(scaler["metrics"][1]["pods"]["metric"], {"name": "sextant_queue_tokens"})
        keda = find(render(PARTS["keda"][0]), "ScaledObject")["spec"]["triggers"]
        self.assertEqual([trigger["type"] for trigger in keda], ["prometheus", "cpu"])
        query = f'sum(sextant_queue_tokens{{namespace="{NAMESPACE}", pod=~"{NAME}-[a-z0-9]+-[a-z0-9]{{5}}"}})'
        self.assertEqual(keda[0]["metadata"], {"serverAddress": "http://p:9090", "query": query, "threshold": "8192"})
        self.assertEqual(keda[0]["authenticationRef"], {"name": "p"})
        self.assertTrue(all(isinstance(value, str) for trigger in keda for value in trigger["metadata"].values()))

    def test_every_volume_claim_secret_and_account_is_made_or_given(self):
        def check(documents):
            made = {(d["kind"], d["metadata"]["name"]) for d in documents}
            given = {"given", "more", "registry", "cache", "c", "library", "sextant-keys", "sextant-bucket"}
            for name, _, spec in pods(documents):
                volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
                for one in spec.get("initContainers", []) + spec["containers"]:
                    mounted = {mount["name"] for mount in one.get("volumeMounts", [])}
                    self.assertLessEqual(mounted, volumes.keys(), name)
                    paths = [mount["mountPath"] for mount in one.get("volumeMounts", [])]
                    # A directory cannot be made in a volume that is mounted for reading.
                    self.assertFalse([p for p in paths for q in paths if p != q and p.startswith(q + "/")], paths)
                    for source in one.get("envFrom", []):
                        for kind, key in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                            if key in source and source[key]["name"] not in given:
                                self.assertIn((kind, source[key]["name"]), made)
                for volume in volumes.values():
                    for kind, key, field in (
                        ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
                        ("ConfigMap", "configMap", "name"),
                        ("Secret", "secret", "secretName"),
                    ):
                        if key in volume and volume[key][field] not in given:
                            self.assertIn((kind, volume[key][field]), made)
                if spec["serviceAccountName"] not in given:
                    self.assertIn(("ServiceAccount", spec["serviceAccountName"]), made)

        self.for_each_case(check)

    def test_routes_lead_to_the_data_port(self):
        [service] = [d for d in render() if d["kind"] == "Service" and d["metadata"]["name"] == NAME]
        [port] = service["spec"]["ports"]
        ingress = find(render(PARTS["ingress"][0]), "Ingress")["spec"]
        self.assertEqual(len(ingress["rules"]), 2)
        for rule in ingress["rules"]:
            [path] = rule["http"]["paths"]
            self.assertEqual(path["backend"]["service"], {"name": NAME, "port": {"name": port["name"]}})
        [rule] = find(render(PARTS["route"][0]), "HTTPRoute")["spec"]["rules"]
        self.assertEqual(rule["backendRefs"], [{"name": NAME, "port": port["port"]}])
        self.assertEqual(rule["matches"], [{"path": {"type": "PathPrefix", "value": "/"}}])

    def test_monitors_ask_the_admin_port(self):
        for part, field in (("service monitor", "endpoints"), ("pod monitor", "podMetricsEndpoints")):
            values, [(kind, _)] = PARTS[part]
            [endpoint] = find(render(values), kind)["spec"][field]
            self.assertEqual((endpoint["port"], endpoint["path"]), ("admin", "/metrics"))

    def test_certificates_lie_where_they_are_looked_for(self):
        def inside(path, one):
            return any(path.startswith(mount["mountPath"] + "/") and mount["readOnly"] for mount in one["volumeMounts"])

        def schemes(documents):
            probes = {container(server(documents))[probe]["httpGet"].get("scheme", "HTTP") for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
            services = {d["metadata"]["name"]: d["spec"]["ports"][0]["appProtocol"] for d in documents if d["kind"] == "Service"}
            [admin] = {probe.lower() for probe in probes} | {services[f"{NAME}-admin"]}
            return services[NAME], admin

        self.assertEqual(schemes(render()), ("http", "http"))
        both, own = render(PARTS["tls"][0]), render(PARTS["tls of its own"][0])
        self.assertEqual((schemes(both), schemes(own)), (("https", "https"), ("http", "https")))
        for documents, names in ((both, {"cert", "key"}), (own, {"admin_cert", "admin_key", "admin_client_ca"})):
            table = tomllib.loads(find(documents, "ConfigMap")["data"]["sextant.toml"])["tls"]
            self.assertEqual(table.keys(), names)
            for path in table.values():
                self.assertTrue(inside(path, container(server(documents))), path)
        self.assertFalse([d for d in both if d["kind"] == "Pod"], "the load generator speaks no TLS")
        [endpoint] = find(own, "ServiceMonitor")["spec"]["endpoints"]
        self.assertEqual((endpoint["scheme"], endpoint["tlsConfig"]), ("https", {"serverName": "a"}))
        job = container(find(own, "Job")["spec"]["template"]["spec"])
        files = {one["name"]: one["value"] for one in job["env"] if "value" in one}
        self.assertEqual(files.keys(), {"SEXTANT_CA", "SEXTANT_CLIENT_CERT", "SEXTANT_CLIENT_KEY"})
        for path in files.values():
            self.assertTrue(inside(path, job), path)
        self.assertIn(f"https://{NAME}-admin:9090", job["args"])

    def test_a_gpu_is_asked_for_once(self):
        spec = server(render(PARTS["gpu"][0]))
        self.assertEqual(container(spec)["resources"]["limits"], {"nvidia.com/gpu": 1})
        self.assertEqual(container(server(render(PARTS["gpus"][0])))["resources"]["limits"]["nvidia.com/gpu"], 2)
        self.assertEqual(spec["runtimeClassName"], "nvidia")
        self.assertIn({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, spec["tolerations"])
        # Only the server: an import computes on processors.
        for name, _, other in pods(render(merged(*(PARTS[p][0] for p in ("gpu", "import job", "canary"))))):
            if name != NAME:
                self.assertNotRegex(json.dumps(other), "nvidia|cuda")

    def test_the_keys_file_has_every_entry_and_the_server_sees_nothing_else_of_its_secret(self):
        documents = render(KEYS)
        secret = find(documents, "Secret", f"{NAME}-keys")["stringData"]
        written = {entry.pop("name"): entry for entry in tomllib.loads(secret["keys.toml"])["keys"]}
        # An entry without models says so itself: one that lost them would be for all.
        self.assertEqual(written, {name: {"models": ["*"]} | entry for name, entry in ENTRIES.items()})
        self.assertEqual(list(secret), ["keys.toml"], "keys themselves are in no values")
        [volume] = [v for v in server(documents)["volumes"] if v["name"] == "keys"]
        self.assertEqual(volume["secret"]["items"], [{"key": "keys.toml", "path": "keys.toml"}])

    def test_an_import_that_must_sign_has_a_key_and_knows_which_are_trusted(self):
        trusted = "/etc/trusted/release.pub"
        for signing in ({"args": ["--sign", "/etc/key/release.pem"]}, {"args": ["--sign=/etc/key/release.pem"]},
                        {"env": [{"name": "SEXTANT_SIGN", "value": "/etc/key/release.pem"}]}):
            values = merged(PARTS["import job"][0], {"import": signing, "config": {"require_signed": trusted}})
            [spec] = [spec for name, _, spec in pods(render(values)) if "-import-" in name]
            self.assertIn({"name": "SEXTANT_REQUIRE_SIGNED", "value": trusted}, container(spec)["env"])

    def test_what_the_chart_runs_sends_a_key_where_there_are_keys(self):
        def keys(values):
            documents = render(merged(PARTS["service monitor"][0], values))
            [test] = [container(spec).get("env") for name, _, spec in pods(documents) if name.endswith("-test")] or [None]
            [endpoint] = find(documents, "ServiceMonitor")["spec"]["endpoints"]
            of = test[0]["valueFrom"]["secretKeyRef"] if test else None
            return of, endpoint.get("authorization", {}).get("credentials")

        self.assertEqual(keys({}), (None, None))
        for values, secret in ((KEYS, "clients"), ({"keys": {"existingSecret": "given"}}, "given")):
            self.assertEqual(keys(values), ({"name": secret, "key": "embed-key"}, {"name": secret, "key": "metrics-key"}))
        # Without a key for it there is no test, rather than one that cannot pass.
        self.assertEqual([name for name, _, _ in pods(render({"keys": {"entries": ENTRIES}})) if name.endswith("-test")], [])


if __name__ == "__main__":
    unittest.main()
