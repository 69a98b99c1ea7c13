"""schemathesis: whatever openapi.yaml allows is taken, whatever it does not is refused, and answers are as it says."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import yaml

from machine import ROOT
from narrow import narrow
from server import ClientTest

HERE = pathlib.Path(__file__).parent
SECONDS = os.environ.get("SCHEMATHESIS_SECONDS", "60")
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")


class Contract(ClientTest):
    def test_the_server_keeps_it(self):
        document = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            contract = pathlib.Path(folder) / "openapi.json"
            contract.write_text(json.dumps(narrow(document, self.server)), encoding="utf-8")
            tried = subprocess.run(
                [
                    sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run", contract,
                    f"--url={self.server.url}", "--checks=all", f"--max-time={SECONDS}", f"--seed={SEED}", "--continue-on-failure",
                    "--generation-database=none", "--suppress-health-check=all", "--no-color",
                ],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True, text=True, timeout=int(SECONDS) + 300,
            )
        self.assertEqual(tried.returncode, 0, tried.stdout[-20000:] + tried.stderr)
        # Not a run that tried nothing.
        operations = sum(len(item) for item in document["paths"].values())
        self.assertIn(f"Tested: {operations}", tried.stdout)
        print(tried.stdout[tried.stdout.index("Test cases:"):], file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
