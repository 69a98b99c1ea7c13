#!/usr/bin/env python3
"""Writes what a release is made of, as CycloneDX 1.6 in JSON: the crates of the server for one target, with licences and digests, and
the runtime library that it loads. The same input gives the same bytes: no time, no random number."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNTIMES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}
# In the order of their digests in setup-requirements.txt, where pip lets no comment stand beside a digest.
MACHINES = ("x86_64", "aarch64")


def tree(target, edges):
    """Every crate that Cargo would build, with its licence and what it depends on. Not `cargo metadata`: that turns on what only the
    tests ask of a crate, and so lists crates that are in no server."""
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", edges, "--prefix", "depth", "--format", "\t{p}\t{l}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    crates, above = {}, []
    for line in filter(None, printed.splitlines()):
        depth, package, licence = line.split("\t")
        name, version = re.match(r"(\S+) v(\S+)", package).groups()
        crate = crates.setdefault((name, version), {"licence": licence.removesuffix(" (*)"), "needs": set()})
        del above[int(depth):]
        if above:
            above[-1]["needs"].add((name, version))
        above.append(crate)
    return crates


def host():
    version = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.search(r"^host: (\S+)$", version, re.MULTILINE)[1]


def purl(crate):
    return "pkg:cargo/{}@{}".format(*crate)


def licences(stated):
    # Older crates write a slash for "or".
    return [{"expression": re.sub(r"\s*/\s*", " OR ", stated)}]


def component(crate, licence, scope, digest):
    name, version = crate
    return {
        "type": "library",
        "bom-ref": purl(crate),
        "name": name,
        "version": version,
        "scope": scope,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": licences(licence),
        "purl": purl(crate),
    }


def runtime(name, target):
    """The runtime as scripts/setup.py fetches it for the machine of `target`, by the digest of its wheel."""
    machine, _, system = target.partition("-")
    if machine not in MACHINES or "linux" not in system:
        sys.exit(f"sbom.py: there is no ONNX Runtime to fetch for {target}, only for Linux on {' and '.join(MACHINES)}")
    pins = (ROOT / "scripts/setup-requirements.txt").read_text()
    version, hashes = re.search(rf"^{name}==(\S+) \\\n((?:\s+--hash=sha256:\w+(?: \\)?\n)+)", pins, re.MULTILINE).groups()
    digests = re.findall(r"sha256:(\w+)", hashes)
    if len(digests) != len(MACHINES):
        sys.exit(f"sbom.py: setup-requirements.txt pins {name} by {len(digests)} digests, not one for each of {', '.join(MACHINES)}")
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": digests[MACHINES.index(machine)]}],
        "licenses": [{"expression": "MIT"}],
        "purl": f"pkg:pypi/{name}@{version}",
    }


def bill(built, linked, digests, loaded):
    """`built` has every crate, `linked` those that are in the program: the others run when it is built. The server comes first."""
    server = next(iter(built))
    parts = [
        component(crate, about["licence"], "required" if crate in linked else "excluded", digests[crate])
        for crate, about in built.items()
        if crate != server
    ]
    needs = {purl(crate): sorted(map(purl, about["needs"])) for crate, about in built.items()}
    needs[purl(server)].append(loaded["bom-ref"])
    needs[loaded["bom-ref"]] = []
    name, version = server
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(server),
                "name": name,
                "version": version,
                "licenses": licences(built[server]["licence"]),
                "purl": purl(server),
            }
        },
        "components": sorted([*parts, loaded], key=lambda part: part["bom-ref"]),
        "dependencies": [{"ref": ref, "dependsOn": needs[ref]} for ref in sorted(needs)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", help="whose crates, as x86_64-unknown-linux-gnu [default: this machine]")
    parser.add_argument("--runtime", choices=RUNTIMES, default="cpu")
    arguments = parser.parse_args()
    target = arguments.target or host()
    loaded = runtime(RUNTIMES[arguments.runtime], target)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    digests = {(crate["name"], crate["version"]): crate.get("checksum") for crate in lock["package"]}
    built, linked = tree(target, "normal,build"), tree(target, "normal,no-proc-macro")
    print(json.dumps(bill(built, linked, digests, loaded), indent=1))


if __name__ == "__main__":
    main()
