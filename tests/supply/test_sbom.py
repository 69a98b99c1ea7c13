"""What the bill of materials says, held against what Cargo and the pins say."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/sbom.py"
TARGET = "x86_64-unknown-linux-gnu"


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


class BillOfMaterials(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = run(sys.executable, SCRIPT, "--target", TARGET)
        cls.bill = json.loads(cls.text)
        cls.components = {component["purl"]: component for component in cls.bill["components"]}

    def test_it_has_every_crate_of_the_target_and_no_other(self):
        """Those that Cargo compiles: it is asked in another way than the script asks."""
        tree = run("cargo", "tree", "--locked", "--target", TARGET, "--edges", "no-dev", "--prefix", "none", "--no-dedupe")
        found = {re.match(r"(\S+) v(\S+)", line).groups() for line in tree.splitlines() if line}
        listed = {(part["name"], part["version"]) for part in self.bill["components"] if "cargo" in part["purl"]}
        self.assertEqual(listed, {crate for crate in found if crate[0] != "sextant"})
        self.assertGreater(len(listed), 200)

    def test_what_is_in_the_program_is_told_from_what_builds_it(self):
        scopes = {component["name"]: component["scope"] for component in self.bill["components"]}
        for name in ("onnxruntime", "ring", "serde", "tokenizers", "ort"):
            self.assertEqual(scopes[name], "required", name)
        for name in ("serde_derive", "zip", "cc", "utoipa-swagger-ui-vendored"):
            self.assertEqual(scopes[name], "excluded", name)
        # Only the tests ask for these.
        self.assertFalse({"criterion", "proptest", "jsonschema"} & set(scopes))

    def test_each_crate_has_its_digest_and_a_licence(self):
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
        digests = {f"pkg:cargo/{crate['name']}@{crate['version']}": crate.get("checksum") for crate in lock["package"]}
        for purl, component in self.components.items():
            [licence] = component["licenses"]
            self.assertRegex(licence["expression"], r"^[\w.+ ()-]+$", purl)
            if purl in digests:
                self.assertEqual([hash["content"] for hash in component["hashes"]], [digests[purl]], purl)

    def test_the_runtime_library_is_a_part_with_the_digest_that_is_fetched_for_the_target(self):
        pins = (ROOT / "scripts/setup-requirements.txt").read_text()
        for runtime, name in (("cpu", "onnxruntime"), ("cuda", "onnxruntime-gpu")):
            found = []
            for target in (TARGET, "aarch64-unknown-linux-gnu"):
                bill = json.loads(run(sys.executable, SCRIPT, "--target", target, "--runtime", runtime))
                [component] = [component for component in bill["components"] if component["name"] == name]
                [digest] = component["hashes"]
                found.append(digest["content"])
            pinned = pins.split(f"{name}=={component['version']} ")[1].split("==")[0]
            self.assertEqual(found, re.findall(r"sha256:(\w{64})", pinned))
            [server] = [entry for entry in bill["dependencies"] if entry["ref"].startswith("pkg:cargo/sextant@")]
            self.assertIn(component["bom-ref"], server["dependsOn"])

    def test_a_machine_without_a_runtime_has_no_bill(self):
        command = [sys.executable, SCRIPT, "--target", "riscv64gc-unknown-linux-gnu"]
        refused = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no ONNX Runtime to fetch for riscv64gc-unknown-linux-gnu", refused.stderr)

    def test_its_form_is_that_of_cyclonedx(self):
        self.assertEqual((self.bill["bomFormat"], self.bill["specVersion"]), ("CycloneDX", "1.6"))
        self.assertEqual(self.bill["metadata"]["component"]["name"], "sextant")
        refs = [component["bom-ref"] for component in self.bill["components"]]
        self.assertEqual(len(refs), len(set(refs)))
        known = {*refs, self.bill["metadata"]["component"]["bom-ref"]}
        self.assertEqual({entry["ref"] for entry in self.bill["dependencies"]}, known)
        for entry in self.bill["dependencies"]:
            self.assertLessEqual(set(entry["dependsOn"]), known)

    def test_the_same_input_gives_the_same_bytes_and_no_path_of_this_machine(self):
        self.assertEqual(run(sys.executable, SCRIPT, "--target", TARGET), self.text)
        self.assertNotIn(str(ROOT), self.text)


if __name__ == "__main__":
    unittest.main()
