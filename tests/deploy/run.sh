#!/usr/bin/env bash
# Runs the tests of the chart, the rules and the dashboards: no cluster, only helm, the schemas of the Kubernetes API, and real servers.
# SEXTANT names the server's binary, if it is not where Cargo puts it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scripts/deploy-tools.sh
tools=.sextant/deploy-tools
if [[ ! -x "$tools/bin/python" ]]; then
    echo "the tests of the chart are skipped: $tools has no helm and no schemas for this machine"
    # Where everything must run, nothing is skipped.
    [[ -z "${CI:-}" ]]
    exit
fi
PYTHONDONTWRITEBYTECODE=1 exec "$tools/bin/python" -m unittest discover --start-directory tests/deploy "$@"
