"""Every pod passes the restricted security profile, starts slowly enough, and stops without losing requests."""

import unittest

from chart import BUCKET, CANARY, ENTRIES, IMPORT, ChartTest, container, find, helm, merged, pods, render, server

# https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


class Restricted(ChartTest):
    def check(self, documents):
        found = list(pods(documents))
        self.assertTrue(found)
        for name, _, spec in found:
            for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
                self.assertNotIn(key, spec, name)
            context = spec["securityContext"]
            self.assertTrue(context["runAsNonRoot"])
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertNotEqual(context.get("runAsUser"), 0)
            self.assertNotIn("sysctls", context)
            for volume in spec.get("volumes", []):
                self.assertLessEqual(volume.keys() - {"name"}, VOLUMES)
            for one in spec.get("initContainers", []) + spec["containers"]:
                own = one["securityContext"]
                self.assertIs(own["allowPrivilegeEscalation"], False)
                self.assertIs(own["readOnlyRootFilesystem"], True)
                self.assertIs(own["runAsNonRoot"], True)
                self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
                self.assertEqual(own["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertNotIn("privileged", own)
                self.assertFalse([port for port in one.get("ports", []) if "hostPort" in port])
                for port in one.get("ports", []):
                    self.assertGreaterEqual(port["containerPort"], 1024)
            # Beyond the profile.
            self.assertIs(spec["automountServiceAccountToken"], False)
            self.assertIs(spec["enableServiceLinks"], False)

    def test_every_pod(self):
        self.for_each_case(self.check)

    def test_without_a_user_of_our_own(self):
        nulls = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
        documents = render(nulls)
        self.check(documents)
        self.assertFalse({"runAsUser", "runAsGroup", "fsGroup"} & server(documents)["securityContext"].keys())

    def test_what_is_written_to_is_a_volume(self):
        for values in (BUCKET, {}, {"import": IMPORT["import"] | {"mode": "InitContainer"}}):
            spec = server(render(values))
            for one in spec.get("initContainers", []) + spec["containers"]:
                paths = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
                self.assertLessEqual({"/tmp": "tmp", "/cache": "cache"}.items(), paths.items())
                self.assertEqual("/models" in paths, values != BUCKET)
                for variable in one.get("env", []):
                    if variable["value"].startswith("/"):
                        self.assertTrue(any(variable["value"].startswith(path) for path in paths), variable)


class Life(ChartTest):
    def test_a_start_may_take_five_minutes(self):
        def check(documents):
            spec = container(server(documents))
            probe = spec["startupProbe"]
            self.assertGreaterEqual(probe["periodSeconds"] * probe["failureThreshold"], 300)
            progress = find(documents, "Deployment")["spec"]["progressDeadlineSeconds"]
            self.assertGreater(progress, probe["periodSeconds"] * probe["failureThreshold"])

        self.for_each_case(check)

    def test_the_probe_waits_longer_than_the_server(self):
        for seconds in (10, 30):
            documents = render({"probes": {"liveness": {"deadlineSeconds": seconds}}})
            probe = container(server(documents))["livenessProbe"]
            self.assertGreater(probe["timeoutSeconds"], seconds)
            self.assertNotIn("deadlineSeconds", probe)
            self.assertIn(f'liveness_deadline = "{seconds}s"', find(documents, "ConfigMap")["data"]["sextant.toml"])

    def test_the_grace_period_is_longer_than_all_parts_of_a_stop(self):
        for before, delay, timeout in ((5, 5, 30), (0, 1, 30), (20, 10, 120)):
            values = {"drain": {"preStopSeconds": before, "delaySeconds": delay, "timeoutSeconds": timeout}}
            documents = render(values)
            spec = server(documents)
            self.assertGreater(spec["terminationGracePeriodSeconds"], before + delay + timeout)
            hook = container(spec).get("lifecycle")
            self.assertEqual(hook, {"preStop": {"sleep": {"seconds": before}}} if before else None)
            toml = find(documents, "ConfigMap")["data"]["sextant.toml"]
            self.assertIn(f'drain_delay = "{delay}s"', toml)
            self.assertIn(f'drain_timeout = "{timeout}s"', toml)
        self.assertEqual(server(render({"terminationGracePeriodSeconds": 90}))["terminationGracePeriodSeconds"], 90)
        finished = helm("template", values={"terminationGracePeriodSeconds": 40})
        self.assertIn("the drain takes 40 s", finished.stderr)

    def test_an_update_takes_no_pod_away_before_its_successor_is_ready(self):
        strategy = find(render(BUCKET), "Deployment")["spec"]["strategy"]
        self.assertEqual(strategy, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})

    def test_two_pods_never_wait_for_one_nodes_volume(self):
        self.assertEqual(find(render(), "Deployment")["spec"]["strategy"], {"type": "Recreate"})
        shared = {"repository": {"volume": {"accessModes": ["ReadWriteMany"]}}, "replicaCount": 3}
        self.assertEqual(find(render(shared), "Deployment")["spec"]["strategy"]["type"], "RollingUpdate")

    def test_a_change_of_settings_restarts_the_pods_and_one_of_keys_does_not(self):
        def annotations(values):
            return find(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

        self.assertNotEqual(annotations({}), annotations({"config": {"max_inputs": 5}}))
        one, other = ({"keys": {"entries": {name: ENTRIES["embed"]}}} for name in "xy")
        self.assertEqual(annotations(one), annotations(other))
        self.assertEqual(annotations({}), annotations({"service": {"port": 80}}))

    def test_an_import_with_another_template_is_another_job(self):
        def name(values):
            [found] = [d["metadata"]["name"] for d in render(merged(BUCKET, IMPORT, values)) if d["kind"] == "Job"]
            return found

        self.assertEqual(name({}), name({"replicaCount": 5}))
        self.assertNotEqual(name({}), name({"image": {"tag": "2"}}))

    def test_a_canary_is_a_hook_after_the_upgrade(self):
        job = find(render(CANARY), "Job")
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "post-upgrade")
        self.assertEqual(job["spec"]["template"]["spec"]["restartPolicy"], "Never")
        [key] = container(job["spec"]["template"]["spec"])["env"]
        self.assertEqual(key["valueFrom"]["secretKeyRef"], {"name": "clients", "key": "admin-key"})
        self.assertEqual(key["name"], "SEXTANT_API_KEY")


if __name__ == "__main__":
    unittest.main()
