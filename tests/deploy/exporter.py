"""A server's page of metrics without a server: every family of the source, growing as under light load.

Standard library only. What families and labels there are is read from the source, so the page cannot lack a new one.
"""

from __future__ import annotations

import http.server
import itertools
import math
import threading
import time
from collections.abc import Iterator

import metrics

START = time.time()
# Values of labels. Where a family has only some of them it is named below.
VALUES: dict[str, list[str]] = {
    "model": ["minilm"], "version": ["1", "2"], "route": ["/v1/embeddings", "/embed", "/metrics"], "method": ["POST"],
    "status": ["200", "429", "503"], "kind": ["real", "padding"], "stage": ["tokenize", "queue", "infer", "finish"],
    "reason": ["repository", "load", "document"], "space": ["d8db44abdd824389"], "precision": ["fp32"], "provider": ["cuda"], "digest": ["0123456789abcdef"],
    "role": ["stable", "canary", "shadow", "previous"], "action": ["rollout", "rollback"], "cause": ["operator", "cosine"],
    "ref": ["08b39f6c"], "test": ["outside", "near", "shift"], "tail": ["0.01", "0.05", "0.20", "low"], "c": [str(c) for c in range(32)],
    "bin": [str(b) for b in range(64)], "feature": ["tokens", "truncated", "unknown"], "fact": ["fitted", "calibrated", "design_effect"],
    "key": ["search", "none"], "outcome": ["done", "failed", "loaded", "refused"], "created": ["2026-01-01T00:00:00Z"],
    "side": ["stable", "trial"], "listener": ["public", "admin"], "device": ["0", "1"],
}  # fmt: skip
OWN_VALUES = {
    ("sextant_rejected_total", "reason"): ["requests", "overloaded", "held_bytes"],
    ("sextant_connections_closed_total", "reason"): ["head", "idle", "write", "handshake", "gave_way", "refused"],
    ("sextant_trace_spans_dropped_total", "reason"): ["queue_full", "export_failed"],
    ("sextant_engine_nodes", "provider"): ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
TAILS = {"0.01": 0.012, "0.05": 0.06, "0.20": 0.21, "low": 0.05}
BOUNDS = {"0.01": 0.0145, "0.05": 0.0596, "0.20": 0.218, "low": 0.0596}
FACTS = {"fitted": 2666.0, "calibrated": 1334.0, "design_effect": 1.0}
BUCKETS = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0]
COSINES = [0.5, 0.9, 0.98, 0.99, 0.995, 0.999, 1.0]
COUNTS = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]
# Samples a second of each version; other counters grow by as much unless they are named.
RATE = 20.0
RATES = {"sextant_sync_failures_total": 0.1, "sextant_rollout_changes_total": 0.1, "sextant_drift_alarms_total": 0.1,
         "sextant_out_of_memory_total": 0.1, "sextant_drift_seconds_total": 0.004, "process_cpu_seconds_total": 0.8,
         "sextant_drift_invalid_total": 0.0}  # fmt: skip


def _rate(name: str, labels: dict[str, str]) -> float:
    if name == "sextant_drift_tail_total":
        return RATE * TAILS[labels["tail"]]
    if name == "sextant_drift_projection_sum_total":
        return RATE * (8 + 0.02 * math.sin(int(labels["c"])))
    if name == "sextant_drift_bin_total":
        return RATE / 64 * (1.5 if labels["bin"] == "7" else 1)
    if name == "sextant_http_requests_total":
        return {"200": RATE, "429": 0.2, "503": 0.1}[labels["status"]]
    return RATES.get(name, RATE)


def _gauge(name: str, labels: dict[str, str], instance: int) -> float:
    if name == "sextant_version_role":
        return float((labels["version"], labels["role"]) in {("1", "stable"), ("2", "canary")})
    known = {
        "sextant_drift_tail_bound": lambda: BOUNDS[labels["tail"]],
        "sextant_drift_reference_fact": lambda: FACTS[labels["fact"]],
        "sextant_drift_bin_share": lambda: 1 / 64,
        "sextant_drift_alarm": lambda: float(labels["test"] == "shift"),
        "sextant_gate_probe_min_cosine": lambda: 0.999999 - instance * 1e-6,
        "sextant_rollout_generation": lambda: 4.0,
        "sextant_models_missing": lambda: 0.0,
        "sextant_files_changed": lambda: 0.0,
        "sextant_drift_sampling_share": lambda: 1.0,
        "sextant_shadow_neighbour_overlap": lambda: 0.97,
        "sextant_tls_certificate_expiry_timestamp_seconds": lambda: START + 90 * 86400,
        "sextant_engine_nodes": lambda: {"CUDAExecutionProvider": 40.0, "CPUExecutionProvider": 6.0}[labels["provider"]],
        "sextant_gpu_memory_used_bytes": lambda: 6e9 + instance * 1e9,
        "sextant_gpu_memory_total_bytes": lambda: 16e9,
        "sextant_gpu_utilization_ratio": lambda: 0.5 + instance * 0.1,
        "process_start_time_seconds": lambda: START,
        "process_resident_memory_bytes": lambda: 4e8,
        "process_max_fds": lambda: 20000.0,
    }
    return known[name]() if name in known else 1.0 + instance


def _line(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _histogram(name: str, labels: dict[str, str], count: float) -> Iterator[str]:
    bounds = COSINES if "cosine" in name else COUNTS if "batch" in name else BUCKETS
    for place, bound in enumerate(bounds, 1):
        yield _line(f"{name}_bucket", labels | {"le": f"{bound:g}"}, math.floor(count * place / len(bounds)))
    yield _line(f"{name}_bucket", labels | {"le": "+Inf"}, count)
    yield _line(f"{name}_sum", labels, count * bounds[len(bounds) // 2])
    yield _line(f"{name}_count", labels, count)


def page(instance: int) -> str:
    """The page of a replica now."""
    lines = []
    elapsed = 100 + time.time() - START
    for metric in metrics.defined().values():
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        values = [OWN_VALUES.get((metric.name, label)) or VALUES[label] for label in metric.labels]
        for combination in itertools.product(*values):
            labels = dict(zip(metric.labels, combination))
            if metric.kind == "histogram":
                lines += _histogram(metric.name, labels, float(math.floor(elapsed * RATE)))
            elif metric.kind == "counter":
                lines.append(_line(metric.name, labels, elapsed * _rate(metric.name, labels)))
            else:
                lines.append(_line(metric.name, labels, _gauge(metric.name, labels, instance)))
    return "\n".join(lines) + "\n"


class Exporter:
    """Serves the page of one replica on a port of its own, until `close`."""

    def __init__(self, instance: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = page(instance).encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
