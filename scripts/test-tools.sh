#!/usr/bin/env bash
# Fetches what only the Rust tests need: moto, an S3 server in Python, into .sextant/test-tools.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/python-tools.sh" \
    scripts/test-requirements.txt .sextant/test-tools "moto, an S3 server for the tests (30 MB)"
