#!/usr/bin/env bash
# Fetches what only the Rust tests need: moto, an S3 server in Python, into .sextant/test-tools; and the ONNX Runtime library for GPUs,
# without CUDA's libraries, into .sextant/test-gpu: what it says where there is no GPU is tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/python-tools.sh scripts/test-requirements.txt .sextant/test-tools "moto, an S3 server for the tests (30 MB)"
if [[ $(uname -s) = Linux ]]; then
    env --unset=ORT_DYLIB_PATH "${PYTHON:-python3}" scripts/setup.py --only runtime-cuda --into .sextant/test-gpu
else
    echo "tests of GPUs are skipped: there is no library for $(uname -s)"
fi
