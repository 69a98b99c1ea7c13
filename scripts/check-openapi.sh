#!/usr/bin/env bash
# Lints openapi.yaml with Spectral: every finding fails. Fetches it into .sextant/openapi-tools; a folder that is there is
# complete, and made from the lock file as it is now; otherwise it is made aside and renamed into place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=scripts/openapi
tools=.sextant/openapi-tools

# Another network has another registry; what is fetched is told by its digests.
if grep --quiet '"resolved"' "$source/package-lock.json"; then
    echo "$source/package-lock.json names a registry: make it with \`npm install --package-lock-only --omit-lockfile-registry-resolved\`"
    exit 1
fi

if ! command -v node > /dev/null || ! command -v npm > /dev/null; then
    echo "openapi.yaml NOT linted: there is no node and npm (Debian: apt-get install nodejs npm)"
    # Where everything must run, nothing is skipped.
    [[ -z "${CI:-}" ]]
    exit
fi

if ! cmp --silent "$source/package-lock.json" "$tools/package-lock.json"; then
    mkdir -p .sextant
    new=$(mktemp -d .sextant/openapi-tools-XXXXXX)
    trap 'rm -rf "$new"' EXIT
    echo "fetching Spectral (70 MB) into $tools"
    cp "$source/package.json" "$source/package-lock.json" "$new"
    # No package's own scripts: one of them reports its installation to its maker.
    npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error
    rm -rf "$tools"
    mv "$new" "$tools"
fi

"$tools/node_modules/.bin/spectral" lint --ruleset "$source/ruleset.yaml" --fail-severity hint openapi.yaml
