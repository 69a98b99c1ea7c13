"""Builds the Dockerfile without a container engine, and looks into what came out."""

import functools
import json
import os
import pathlib
import platform
import shutil
import subprocess
import tarfile
import tempfile

from machine import ROOT

DOCKERFILE = ROOT / "Dockerfile"
PROGRAMS = ("apt-get", "buildah", "cargo", "debootstrap", "nsenter", "rustc", "unshare")


def obstacle():
    """Why no image can be built here; None if one can."""
    if platform.system() != "Linux" or os.geteuid():
        return "images are built by root on Linux only"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"images need {', '.join(missing)}, not there (Debian: apt-get install buildah debootstrap)"
    return None


class Workshop:
    """A storage of images of its own, with the bases, in a new folder below .sextant/."""

    def __init__(self):
        (ROOT / ".sextant").mkdir(exist_ok=True)
        self.temporary = tempfile.TemporaryDirectory(prefix="image-", dir=ROOT / ".sextant")
        self.folder = pathlib.Path(self.temporary.name) / "bases"
        self.environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf")}
        # What the script or buildah mount goes with a namespace of theirs: removing the folder removes nothing else.
        self.run([ROOT / "scripts/image-bases.sh", self.folder])

    def run(self, command, errors=subprocess.PIPE):
        line = ["unshare", "--mount", *map(str, command)]
        finished = subprocess.run(line, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        if finished.returncode:
            raise AssertionError(f"{line}\n{finished.stdout[-4000:]}\n{(finished.stderr or '')[-4000:]}")
        return finished.stdout

    def buildah(self, *arguments):
        return self.run(["buildah", *arguments])

    def build(self, target, **arguments):
        """Builds a target; returns what the build printed, and what its programs said of their work among it."""
        options = (self.folder / "options").read_text().splitlines()
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        command = ["buildah", "bud", *options, *given, "--layers=false", f"--target={target}", f"--tag={target}", "."]
        return self.run(command, errors=subprocess.STDOUT)

    def config(self, image):
        return json.loads(self.buildah("inspect", "--type=image", image))["Docker"]["config"]

    def root(self, image):
        """The root of a new container of the image."""
        container = self.buildah("from", "--pull-never", image).strip()
        return pathlib.Path(self.buildah("mount", container).strip())

    def layers(self, image):
        """For each layer, the lowest first, the names of what it adds."""
        folder = self.folder / "layers"
        self.buildah("push", "--quiet", "--disable-compression", image, f"dir:{folder}")
        names = []
        for layer in json.loads((folder / "manifest.json").read_text())["layers"]:
            with tarfile.open(folder / layer["digest"].removeprefix("sha256:")) as archive:
                names.append([member.name.removeprefix("./") for member in archive])
        shutil.rmtree(folder)
        return names

    def close(self):
        self.temporary.cleanup()


@functools.lru_cache(maxsize=None)
def stages():
    """The instructions of each stage, without comments and line breaks, by its name, or else its number."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    found = {}
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        words = instruction.split()
        if words[0] == "FROM":
            found[words[3] if len(words) > 2 else str(len(found))] = current = []
        if found:
            current.append(" ".join(words))
    return found
