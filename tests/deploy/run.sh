#!/usr/bin/env bash
# Runs the tests of the Helm chart: no cluster, only helm and the schemas of the Kubernetes API. SEXTANT names the server's
# binary, if it is not where Cargo puts it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scripts/deploy-tools.sh
tools=.sextant/deploy-tools
if [[ ! -x "$tools/bin/helm" ]]; then
    echo "the tests of the chart are skipped: there is no helm in $tools"
    # Where everything must run, nothing is skipped.
    [[ -z "${CI:-}" ]]
    exit
fi
PYTHONDONTWRITEBYTECODE=1 exec "$tools/bin/python" -m unittest discover --start-directory tests/deploy "$@"
