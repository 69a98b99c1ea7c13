#!/usr/bin/env bash
# Fetches the clients that tests/clients runs against the server, and schemathesis, into .sextant/client-tools.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/python-tools.sh" \
    scripts/client-requirements.txt .sextant/client-tools "clients for the tests (92 MB)"
