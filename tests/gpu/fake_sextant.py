#!/usr/bin/env python3
"""A stand-in for the release binary that knows the commands of `scripts/gpu-check`, and errs where FAKE_FAULT says so: what the checks
make of a server that is right on a GPU, and of one that is not, can be seen without either.

Its vectors are made of the text alone. FAKE_FOLDER gets the ids of its servers.
"""

import base64
import hashlib
import json
import os
import pathlib
import random
import signal
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ.get("FAKE_FAULT", "")
WIDTH, MOST_TOKENS = 16, 256
# Bytes of device memory with which it starts at least.
LEAST_MEMORY = 100 * 2**20
BASE = 500 * 2**20


def vector(text, spoilt=False):
    chance = random.Random(hashlib.sha256(text.encode()).digest())
    numbers = [chance.gauss(0, 1) for _ in range(WIDTH)]
    if spoilt:
        numbers[0] += 0.5
    return struct.pack(f"<{WIDTH}f", *numbers)


def floats_of(text):
    return struct.unpack(f"<{WIDTH}f", vector(text))


class State:
    def __init__(self, device, memory):
        self.device, self.memory = device, memory
        self.stable, self.draining = 2, False
        self.rollouts = self.requests = 0

    @property
    def on_gpu(self):
        return self.device != "cpu"

    @property
    def nodes(self):
        if not self.on_gpu:
            return {"CPUExecutionProvider": 60}
        if FAULT == "nodes":
            return {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 57}
        return {"CUDAExecutionProvider": 58, "CPUExecutionProvider": 2}

    def metrics(self):
        version = f'model="checked",version="{self.stable}"'
        exported = self.nodes | ({"CUDAExecutionProvider": 60} if FAULT == "metrics" else {})
        lines = [f'sextant_engine_nodes{{{version},provider="{name}"}} {count}' for name, count in exported.items()]
        lines.append(f'sextant_version_info{{{version},provider="{"cuda" if self.on_gpu else "cpu"}"}} 1')
        for stage in ("tokenize", "queue", "infer", "finish"):
            lines.append(f'sextant_stage_duration_seconds_sum{{{version},stage="{stage}"}} {self.requests * 0.002}')
            lines.append(f'sextant_stage_duration_seconds_count{{{version},stage="{stage}"}} {self.requests}')
        if self.on_gpu:
            used = BASE * (1 + (self.rollouts if FAULT == "leak" else 0))
            lines += [f'sextant_gpu_memory_used_bytes{{device="0"}} {used}', 'sextant_gpu_utilization_ratio{device="0"} 0.9']
            lines.append(f"sextant_out_of_memory_total{{{version}}} {self.requests if self.memory and FAULT != 'roomy' else 0}")
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None

    def log_message(self, *_):
        pass

    def answer(self, content, status=200):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        state = self.state
        if self.path == "/readyz" and state.draining:
            return self.answer({}, 503)
        if self.path == "/readyz":
            device = [state.device if ":" in state.device or not state.on_gpu else f"{state.device}:0"]
            version = f"checked@{state.stable}"
            placed = {"devices": ["cpu"] if FAULT == "device" else device, "nodes": state.nodes}
            return self.answer({"status": "ready", "models": [version], "placement": {version: placed}})
        if self.path == "/metrics":
            return self.answer(state.metrics().encode())
        if self.path == "/info":
            return self.answer({"max_input_length": MOST_TOKENS})
        return self.answer({"status": "alive"})

    def do_POST(self):
        state = self.state
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/swap":
            state.rollouts += 1
            state.stable = body["to"]
            return self.answer({})
        if self.path == "/tokenize":
            return self.answer([[{"id": number} for number in range(len(text.split()) + 2)] for text in body["inputs"]])
        state.requests += 1
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        # Long enough to be under way when a stop comes.
        time.sleep(0.3 if FAULT == "lost" else 0.01)
        if FAULT == "status" and state.memory and len(texts) > 1:
            return self.answer({"error": {}}, 500)
        if FAULT == "lost" and state.draining:
            self.close_connection = True
            return None
        spoilt = state.on_gpu and (FAULT == "vectors" or (FAULT == "batch" and len(texts) > 1))
        data = [{"index": at, "embedding": base64.b64encode(vector(text, spoilt)).decode()} for at, text in enumerate(texts)]
        return self.answer({"data": data})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # All clients may come at once.
    request_queue_size = 64


def serve(flags):
    device, memory = flags.get("--device"), int(flags.get("--device-memory", 0))
    if device == "cuda:99" and FAULT != "anything":
        return fail("slow and without a word" if FAULT == "mute" else "cuda:99 cannot be had: there is no such device")
    if memory and memory < LEAST_MEMORY:
        if FAULT == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return fail(f"checked@2 cannot be served: {memory} bytes of cuda:0 do not suffice")
    Handler.state = state = State(device, memory)
    provider = "CUDAExecutionProvider" if state.on_gpu else "CPUExecutionProvider"
    print(json.dumps({"message": "loaded", "nodes": "" if FAULT == "log" else f"58 on {provider}"}), file=sys.stderr, flush=True)
    server = Server(("127.0.0.1", 0), Handler)

    def stop(*_):
        state.draining = True
        threading.Timer(float(flags["--drain-delay"].rstrip("s")), server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    pathlib.Path(os.environ["FAKE_FOLDER"], f"server-{os.getpid()}").touch()
    print(f"Sextant serves on http://127.0.0.1:{server.server_port}. Try:", flush=True)
    server.serve_forever(poll_interval=0.02)
    return 0


def fail(cause):
    print(f"error: {cause}", file=sys.stderr)
    return 1


def run_import(flags):
    folder = pathlib.Path(flags["--models"], flags["--name"], "versions")
    number = len(list(folder.glob("*"))) + 1 if folder.exists() else 1
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "model.onnx").write_bytes(b"graph")
    print(f"imported checked@{number}: {flags['--precision']}")
    return 0


def verify(flags):
    figure = None if FAULT == "nan" else 0.99 if FAULT == "probes" and flags["--device"] != "cpu" else 1.0
    checks = [
        {"name": name, "verdict": "passed", "figure": figure, "bound": None, "sentence": ""} for name in ("probe_cosine", "claim_cosine")
    ]
    print(json.dumps({"version": "checked", "passed": FAULT != "gate", "checks": checks}))
    return 3 if FAULT == "gate" else 0


def bench_session(flags):
    print(json.dumps({
        "device": [flags["--device"]], "precision": "fp16", "sessions": 2, "batches": "64 rows", "tokens_per_second": 1000.0,
        "latency_ms": {"tokens": 27, "p50": 0.5},
    }))  # fmt: skip
    return 0


def bench_server(flags):
    """Figures that no server had to give."""
    time.sleep(float(flags["--duration"].removesuffix("ms")) / 1000)
    failed = 1 if FAULT == "failures" else 0
    speed = 500.0 if FAULT == "slow" else 950.0
    print(json.dumps({
        "requests": {"sent": 100, "answered": 100, "failed": 0, "abandoned": 0, "not_sent": 0},
        "statuses": {"200": 100 - failed} | ({"503": failed} if failed else {}), "failures": {},
        "latency_ms": {"p50": 2.0 if FAULT == "slow" else 0.9},
        "per_second": {"requests": speed / 900, "inputs": speed / 45, "tokens": speed / int(os.environ.get("FAKE_GENERATORS", 1))},
        "generator": {"processor_share": 0.3},
    }))  # fmt: skip
    return 0


def swap(flags, to):
    import urllib.request

    if FAULT == "rollout":
        return fail("checked@1 does not pass the gate")
    urllib.request.urlopen(urllib.request.Request(f"{flags['--server']}/swap", json.dumps({"to": to}).encode())).read()
    return 0


def main(arguments):
    if arguments == ["--version"]:
        print("sextant 0.0.0 (a stand-in)")
        return 0
    flags, words = {}, []
    rest = iter(arguments)
    for one in rest:
        if "=" in one:
            flags.update([one.split("=", 1)])
        elif one in ("--json", "--activate", "--latency"):
            flags[one] = ""
        elif one.startswith("--"):
            flags[one] = next(rest)
        else:
            words.append(one)
    if words[:2] == ["bench", "session"]:
        return bench_session(flags)
    commands = {"import": run_import, "verify": verify, "serve": serve, "bench": bench_server}
    if words[0] in commands:
        return commands[words[0]](flags)
    return swap(flags, 1 if words[0] == "rollout" else 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
