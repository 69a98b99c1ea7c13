"""The server beside what people would run instead: sentence-transformers in fp16, on the same texts, sorted by length."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ..context import FP16, Context
from ..peer import spread
from ..report import Bound, information, measured, skipped
from .correctness import LEAST as LEAST_COSINES
from .correctness import least, shown

# Served, of its tokens per second.
LEAST = 1.5
PEER = Path(__file__).resolve().parent.parent / "peer.py"
# Importing PyTorch, and trying the batch sizes.
PATIENCE = 240.0
# Seconds in which it tries them.
SECONDS = 20
# Texts whose vectors it returns too: what computes something else is no comparison.
COMPARED = 8
NAME = "beside: served / {} in fp16"


def check(context: Context) -> None:
    options, report = context.options, context.report
    if not options.has_gpu:
        report.add(skipped(NAME.format("sentence-transformers"), "no GPU"))
        return
    served = context.served
    texts = [{"text": text, "ids": ids} for text, ids in zip(context.texts, context.ids)]
    texts.sort(key=lambda one: len(one["ids"]))
    ours = context.server(FP16).vectors([one["text"] for one in spread(texts, COMPARED)])
    # It has the device alone, as the server had.
    context.stop_servers()
    file = context.folder / "beside.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in texts), encoding="utf-8")
    found = ask(context, file)
    if "unavailable" in found:
        report.add(skipped(NAME.format("sentence-transformers"), found["unavailable"]))
        return
    peer, speed = found["peer"], found["tokens_per_second"]
    report.facts["versions"]["peer"] = found["versions"]
    figure, _ = least(ours, found["vectors"])
    report.add(measured(f"beside: vectors of {peer}", figure, Bound(least=LEAST_COSINES[FP16]), shown(figure)))
    report.add(
        information(
            f"beside: {peer}",
            f"{speed:,.0f} tokens/s ({found['versions']}, batches of {found['batch']})",
            **{key: value for key, value in found.items() if key != "vectors"},
        )
    )
    ratio = served.tokens_per_second / len(options.gpus) / speed
    report.add(measured(NAME.format(peer), ratio, Bound(least=LEAST), f"{ratio:.2f}", not options.quick))


def ask(context: Context, texts: Path) -> dict:
    """What the peer found in a process of its own, or why it could not run."""
    options = context.options
    seconds = min(SECONDS, 4 * options.measure)
    command = (
        options.python,
        PEER,
        options.checkpoint,
        texts,
        "--device",
        f"cuda:{options.gpus[0]}",
        "--seconds",
        seconds,
        "--vectors",
        COMPARED,
    )
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    try:
        process = context.binary.children.start(command, os.environ | offline, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        return {"unavailable": f"{options.python} cannot be run: {error.strerror}"}
    finished = context.binary.collect(process, PATIENCE)
    lines = finished.output.strip().splitlines()
    if finished.code != 0 or not lines:
        raise ValueError(f"{PEER.name} ended with code {finished.code}: {finished.cause}")
    return json.loads(lines[-1])
