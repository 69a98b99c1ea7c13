#!/usr/bin/env bash
# Runs real clients against the real server with real weights, and schemathesis over openapi.yaml.
# SEXTANT names the server's binary, if it is not where Cargo puts it; SCHEMATHESIS_SECONDS and SCHEMATHESIS_SEED, how long and
# from which seed the contract is tried.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "the tests of clients are skipped: they are pinned for Python 3.11 or newer, and this is $("${PYTHON:-python3}" --version)"
    # Where everything must run, nothing is skipped.
    [[ -z "${CI:-}" ]]
    exit
fi
scripts/client-tools.sh
# What these tests and those of the chart need of a machine is the same. Some clients leave their connections open.
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/deploy exec .sextant/client-tools/bin/python -W ignore::ResourceWarning \
    -m unittest discover --start-directory tests/clients "$@"
