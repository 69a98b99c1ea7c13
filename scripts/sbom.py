#!/usr/bin/env python3
"""Writes what a release is made of, as CycloneDX 1.6 in JSON: the crates of the server for one target, with licences and digests, and
the runtime library that it loads. The same input gives the same bytes: no time, no random number."""

import argparse
import json
import pathlib
import re
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNTIMES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}


def metadata(target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def host():
    version = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.search(r"^host: (\S+)$", version, re.MULTILINE)[1]


def reached(nodes, packages, root):
    """The packages that are in the program, and those that only its build runs: build scripts, macros, and what they use."""
    linked, built = set(), set()
    waiting = [(root, True)]
    while waiting:
        package, in_program = waiting.pop()
        if any("proc-macro" in target["kind"] for target in packages[package]["targets"]):
            in_program = False
        if package in linked or (package in built and not in_program):
            continue
        built.discard(package)
        (linked if in_program else built).add(package)
        for dependency in nodes[package]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if None in kinds:
                waiting.append((dependency["pkg"], in_program))
            if "build" in kinds:
                waiting.append((dependency["pkg"], False))
    return linked, built


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licences(package):
    # Older crates write a slash for "or".
    stated = package["license"]
    if stated is None:
        return [{"license": {"name": f"see {package['license_file']} in the crate"}}]
    return [{"expression": re.sub(r"\s*/\s*", " OR ", stated)}]


def crate(package, scope, digests):
    component = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": scope,
        "licenses": licences(package),
        "purl": purl(package),
    }
    if digest := digests.get((package["name"], package["version"])):
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return component


def runtime(name):
    """The runtime as scripts/setup.py fetches it: a wheel for each machine, by digest."""
    pins = (ROOT / "scripts/setup-requirements.txt").read_text()
    version, hashes = re.search(rf"^{name}==(\S+) \\\n((?:\s+--hash=sha256:\w+(?: \\)?\n)+)", pins, re.MULTILINE).groups()
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in re.findall(r"sha256:(\w+)", hashes)],
        "licenses": [{"expression": "MIT"}],
        "purl": f"pkg:pypi/{name}@{version}",
    }


def bill(cargo, lock, library):
    packages = {package["id"]: package for package in cargo["packages"]}
    nodes = {node["id"]: node for node in cargo["resolve"]["nodes"]}
    root = cargo["resolve"]["root"]
    digests = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    linked, built = reached(nodes, packages, root)
    scopes = {id: "required" if id in linked else "excluded" for id in linked | built}
    crates = [crate(packages[id], scope, digests) for id, scope in scopes.items() if id != root]
    loaded = runtime(library)

    def needed(id):
        used = [entry["pkg"] for entry in nodes[id]["deps"] if {kind["kind"] for kind in entry["dep_kinds"]} != {"dev"}]
        refs = {purl(packages[package]) for package in used}
        return sorted(refs | {loaded["bom-ref"]} if id == root else refs)

    server = packages[root]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(server),
                "name": server["name"],
                "version": server["version"],
                "licenses": licences(server),
                "purl": purl(server),
            }
        },
        "components": sorted([*crates, loaded], key=lambda component: component["bom-ref"]),
        "dependencies": [
            *sorted(
                ({"ref": purl(packages[id]), "dependsOn": needed(id)} for id in scopes),
                key=lambda dependency: dependency["ref"],
            ),
            {"ref": loaded["bom-ref"], "dependsOn": []},
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", help="whose crates, as x86_64-unknown-linux-gnu [default: this machine]")
    parser.add_argument("--metadata", type=pathlib.Path, help="what `cargo metadata` printed, where cargo is elsewhere")
    parser.add_argument("--runtime", choices=RUNTIMES, default="cpu")
    arguments = parser.parse_args()
    if arguments.metadata:
        cargo = json.loads(arguments.metadata.read_text())
    else:
        cargo = metadata(arguments.target or host())
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    print(json.dumps(bill(cargo, lock, RUNTIMES[arguments.runtime]), indent=1))


if __name__ == "__main__":
    main()
