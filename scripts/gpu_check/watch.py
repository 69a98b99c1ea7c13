"""What a server takes while something runs: processors, memory, the GPU. Looked at from beside it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from .binary import CommandFailed
from .server import Server

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    # By the monotonic clock.
    at: float
    # Processor time of the server since it started, seconds.
    processor: float
    # Bytes.
    resident: int
    # Bytes of the GPUs that are asked for; `None` where nobody says it.
    device: float | None
    # 0 to 1, the mean over the GPUs.
    utilization: float | None


def processor_seconds(pid: int) -> float:
    """User and system time of a process, fields 14 and 15. The name, field 2, may hold spaces and brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE


def query_gpus(gpus: list[int], *fields: str) -> list[list[str]] | None:
    """What `nvidia-smi` says of the GPUs, a list each; `None` where it is not there or does not answer."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", ",".join(map(str, gpus))]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.split(", ") for line in printed.stdout.strip().splitlines()]
    return lines if printed.returncode == 0 and len(lines) == len(gpus) else None


def device_figures(server: Server, gpus: list[int]) -> tuple[float | None, float | None]:
    """Used bytes and utilization of the GPUs, by the server's metrics, or else by `nvidia-smi`."""
    if not gpus:
        return None, None
    metrics = server.metrics()
    used = [metrics.sum("sextant_gpu_memory_used_bytes", device=str(gpu)) for gpu in gpus]
    busy = [metrics.sum("sextant_gpu_utilization_ratio", device=str(gpu)) for gpu in gpus]
    told = [(bytes_used, share) for bytes_used, share in zip(used, busy) if bytes_used is not None and share is not None]
    if len(told) == len(gpus):
        return sum(bytes_used for bytes_used, _ in told), sum(share for _, share in told) / len(gpus)
    if (asked := query_gpus(gpus, "memory.used", "utilization.gpu")) is None:
        return None, None
    try:
        return sum(float(used) for used, _ in asked) * 2**20, sum(float(busy) for _, busy in asked) / len(gpus) / 100
    except ValueError:  # "[N/A]"
        return None, None


class Watch:
    """Samples of a server, for as long as the block runs."""

    def __init__(self, server: Server, gpus: list[int], interval: float = 0.5) -> None:
        self.server, self.gpus, self.interval = server, gpus, interval
        self.samples: list[Sample] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def __enter__(self) -> Watch:
        self.look()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def work(self) -> None:
        while not self.over.wait(self.interval):
            try:
                self.look()
            except (OSError, HTTPException, CommandFailed):  # The server ends, which its own check says.
                return

    def look(self) -> None:
        pid = self.server.pid
        device, utilization = device_figures(self.server, self.gpus)
        self.samples.append(Sample(time.monotonic(), processor_seconds(pid), resident_bytes(pid), device, utilization))

    def between(self, begin: float, end: float) -> list[Sample]:
        return [sample for sample in self.samples if begin <= sample.at <= end]

    def cores(self, begin: float, end: float) -> float | None:
        """Processors that the server kept busy, in the mean."""
        inside = self.between(begin, end)
        if len(inside) < 2:
            return None
        first, last = inside[0], inside[-1]
        return (last.processor - first.processor) / (last.at - first.at)

    def utilization(self, begin: float, end: float) -> float | None:
        values = [sample.utilization for sample in self.between(begin, end) if sample.utilization is not None]
        return sum(values) / len(values) if values else None


def quarters(samples: list[Sample], begin: float, end: float, of: str) -> list[float] | None:
    """The peak of a figure in each quarter of the time; `None` where one has no sample."""
    peaks = []
    for quarter in range(4):
        since, until = (begin + (end - begin) * share / 4 for share in (quarter, quarter + 1))
        values = [getattr(sample, of) for sample in samples if since <= sample.at < until and getattr(sample, of) is not None]
        if not values:
            return None
        peaks.append(max(values))
    return peaks
