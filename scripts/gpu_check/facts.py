"""What was checked on what: the machine, the device, and the versions of everything."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from .options import Options
from .watch import query_gpus

# In a process of its own: a library that cannot be loaded must not end this one.
VERSION = """
import ctypes, sys
class Base(ctypes.Structure):
    _fields_ = [("GetApi", ctypes.c_void_p), ("GetVersionString", ctypes.CFUNCTYPE(ctypes.c_char_p))]
get = ctypes.CDLL(sys.argv[1]).OrtGetApiBase
get.restype = ctypes.POINTER(Base)
print(get().contents.GetVersionString().decode())
"""


def gather(options: Options) -> dict:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": {"asked": options.device, "gpus": gpus(options), "driver": driver(options)},
        "machine": {
            "processor": processor(),
            "processors": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.platform(),
        },
        "versions": {
            "sextant": printed(options.sextant, "--version"),
            "sextant_sha256": hashlib.sha256(options.sextant.read_bytes()).hexdigest(),
            "onnxruntime": printed(sys.executable, "-c", VERSION, options.onnxruntime),
            "python": platform.python_version(),
        },
        "settings": {
            "phases": list(options.only), "quick": options.quick, "measure_seconds": options.measure, "rounds": options.rounds,
            "soak_seconds": options.soak, "rollouts": options.rollouts, "generators": options.generators, "clients": options.clients,
        },
    }  # fmt: skip


def gpus(options: Options) -> list[dict]:
    found = query_gpus(options.gpus, "name", "memory.total") if options.has_gpu else None
    return [{"name": name, "memory_mib": memory} for name, memory in found or []]


def driver(options: Options) -> str | None:
    found = query_gpus(options.gpus, "driver_version") if options.has_gpu else None
    return found[0][0] if found else None


def processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return match[1] if match else platform.machine()


def printed(*command: object) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() if done.returncode == 0 else f"unknown: {done.stderr.strip().splitlines()[-1:]}"


def told(facts: dict) -> str:
    """The head of the table."""
    device, machine, versions = facts["device"], facts["machine"], facts["versions"]
    names = ", ".join(gpu["name"] for gpu in device["gpus"]) or ("no GPU" if device["asked"] == "cpu" else "unknown")
    gpu = f"{device['asked']} ({names}{', driver ' + device['driver'] if device['driver'] else ''})"
    text = (
        f"{facts['date'][:10]}  device {gpu}  {machine['processors']} processors ({machine['processor']})\n"
        f"{versions['sextant']}, ONNX Runtime {versions['onnxruntime']}"
    )
    if peer := versions.get("peer"):
        text += f", beside {peer}"
    if texts := facts.get("texts"):
        text += f"\n{texts['texts']} texts: {texts['median']} tokens at the median, {texts['p95']} at p95, {texts['max']} at most"
    return text
