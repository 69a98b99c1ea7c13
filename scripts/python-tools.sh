#!/usr/bin/env bash
# Fetches Python packages that only tests need: python-tools.sh PINS FOLDER WHAT [UNPACK]. A folder that is there is complete, and
# made from the pins as they are now; otherwise it is made aside, finished by UNPACK, and renamed into place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=$1 tools=$2 what=$3 unpack=${4:-}
cmp --silent "$pins" "$tools/requirements.txt" && exit

mkdir -p .sextant
new=$(mktemp -d "$tools-XXXXXX")
trap 'rm -rf "$new"' EXIT
echo "fetching $what, into $tools"
# Without a pip of its own: Debian's Python has none to give, and that of the machine can fill another's folder.
"${PYTHON:-python3}" -m venv --without-pip "$new"
packages=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "${PYTHON:-python3}" -m pip install --quiet \
    --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --no-deps --target "$packages" \
    --requirement "$pins"
[[ -z "$unpack" ]] || "$new/bin/python" "$unpack" "$packages" "$new/bin"
cp "$pins" "$new/requirements.txt"
rm -rf "$tools"
mv "$new" "$tools"
