"""Embeds texts as people do without a server, and prints how fast: sentence-transformers, else transformers, else PyTorch alone.

    peer.py CHECKPOINT TEXTS --device cuda:0

A program of its own: what it imports is on the machine that is checked or is not, and a crash in it is a row of a table. It prints one line
of JSON: {"peer", "versions", "device", "batch", "tokens_per_second", "texts_per_second", "tried", "vectors"}, or {"unavailable": reason}.
TEXTS has a line {"text", "ids"} for each text, shortest first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.dont_write_bytecode = True

# Texts; the fastest counts.
BATCHES = (64, 128, 256, 512, 1024, 2048)
# Embeds texts in batches of so many: rows of numbers, on the CPU.
Embed = Callable[[list, int], Iterable]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="for all batch sizes")
    parser.add_argument("--vectors", type=int, default=8, help="of so many texts of all lengths")
    parser.add_argument("--peer", choices=PEERS, help="this one, and no other")
    print(json.dumps(found(parser.parse_args())), flush=True)


def found(given: argparse.Namespace) -> dict:
    if importlib.util.find_spec("torch") is None:
        return {"unavailable": f"{sys.executable} has no torch"}
    import torch

    if given.device.startswith("cuda") and not torch.cuda.is_available():
        return {"unavailable": f"torch {torch.__version__} of {sys.executable} sees no GPU"}
    texts = [json.loads(line) for line in given.texts.read_text(encoding="utf-8").splitlines()]
    names = [given.peer] if given.peer else [name for name in PEERS if name == "torch" or importlib.util.find_spec(name)]
    embed, versions = PEERS[names[0]](given.checkpoint, given.device)
    with torch.inference_mode():
        sampled = spread(texts, given.vectors)
        vectors = [[float(number) for number in row] for row in embed(sampled, len(sampled))]
        tried = {batch: speed(embed, texts, batch, given.seconds / len(BATCHES)) for batch in BATCHES if batch <= len(texts)}
    best = max(tried, key=tried.__getitem__)
    tokens = sum(len(text["ids"]) for text in texts)
    return {
        "peer": names[0].replace("_", "-"),
        "versions": f"{versions}, torch {torch.__version__}",
        "device": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device,
        "batch": best,
        "tokens_per_second": tried[best] * tokens / len(texts),
        "texts_per_second": tried[best],
        "tried": tried,
        "vectors": vectors,
    }


def spread(texts: list, count: int) -> list:
    """So many of them, from the first on at even distances."""
    return texts[:: max(1, len(texts) // count)][:count]


def speed(embed: Embed, texts: list, batch: int, seconds: float) -> float:
    """Texts per second over whole passes. The results are on the CPU when a pass ends, so nothing is still under way."""
    embed(texts[:: max(1, len(texts) // (4 * batch))], batch)
    passes, started = 0, time.perf_counter()
    while passes == 0 or time.perf_counter() - started < seconds:
        embed(texts, batch)
        passes += 1
    return passes * len(texts) / (time.perf_counter() - started)


def with_sentence_transformers(checkpoint: Path, device: str) -> tuple[Embed, str]:
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(checkpoint), device=device)
    model = model.half() if device.startswith("cuda") else model

    def embed(texts: list, batch: int) -> Iterable:
        return model.encode([one["text"] for one in texts], batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    return embed, f"sentence-transformers {sentence_transformers.__version__}"


def with_transformers(checkpoint: Path, device: str) -> tuple[Embed, str]:
    """Tokenizing included, pooled by the mean."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(checkpoint))
    model = transformers.AutoModel.from_pretrained(str(checkpoint)).to(device).eval()
    model = model.half() if device.startswith("cuda") else model

    def embed(texts: list, batch: int) -> Iterable:
        rows = []
        for first in range(0, len(texts), batch):
            part = texts[first : first + batch]
            longest = max(len(one["ids"]) for one in part)
            fields = tokenizer([one["text"] for one in part], padding=True, truncation=True, max_length=longest, return_tensors="pt").to(
                device
            )
            rows.append(pooled(model(**fields).last_hidden_state, fields["attention_mask"]).float().cpu())
        return torch.cat(rows).tolist()

    return embed, f"transformers {transformers.__version__}"


def with_torch(checkpoint: Path, device: str) -> tuple[Embed, str]:
    """The ids are ready, so it does not even tokenize: a harder peer than the others."""
    import bert
    import torch

    model = bert.Bert(checkpoint, device, torch.float16 if device.startswith("cuda") else torch.float32)

    def embed(texts: list, batch: int) -> Iterable:
        rows = []
        for first in range(0, len(texts), batch):
            ids, mask = bert.padded([one["ids"] for one in texts[first : first + batch]], device)
            rows.append(pooled(model(ids, mask), mask).float().cpu())
        return torch.cat(rows).tolist()

    return embed, "an own forward pass"


def pooled(hidden, mask):
    """The mean over the real tokens, as unit vectors: hidden [B, S, H], mask [B, S]."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    # In fp32: the sum over a long text is beyond what fp16 keeps apart.
    means = (hidden * weights).float().sum(1) / weights.float().sum(1)
    return torch.nn.functional.normalize(means, dim=1)


# The first that is there.
PEERS = {"sentence_transformers": with_sentence_transformers, "transformers": with_transformers, "torch": with_torch}

if __name__ == "__main__":
    main()
