"""Texts to measure with: made from the checkpoint's own vocabulary, the same every time, or those of a file."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

SEED = 20261129
# Distinct, and more than are in flight at once: of equal texts in flight the server computes one, which would flatter it.
COUNT = 12_000
WORDS = 3_000
# Tokens: log-normal with this median and 95th percentile, the mix of benches/server.
MEDIAN, P95, FEWEST, MOST = 27, 145, 4, 256
# The first and the last token of a text.
SPECIAL = 2
# 1.6449 standard deviations above the median lies the 95th percentile of a normal distribution.
SIGMA = math.log(P95 / MEDIAN) / 1.6449
# What a tokenizer of words puts before one that begins a word: BPE of bytes, and unigrams.
BEGINNINGS = ("\u0120", "\u2581")
# Texts that are no such words.
ODD = [
    "a", "7", "The 7 quick brown foxes, they're gone!", "naïve café, Ελληνικά, русский, 中文文本, 日本語", "🙂🙃 emoji 👩‍🚀",
    "  white \t space  ", "x" * 400, "https://example.org/a?b=c&d=%20#e", "SHOUTING, and CamelCase, and snake_case_names",
    "for i in range(10): print(i ** 2)", " ".join(["far more than the model takes"] * 100),
]  # fmt: skip


def words(checkpoint: Path) -> list[str]:
    """Plain words of the vocabulary, which are one token each or few, in an order of their own."""
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    # A list of pieces with their scores, of unigrams.
    pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    begins = tuple(mark for mark in BEGINNINGS if any(piece.startswith(mark) for piece in pieces))
    whole = [piece[1:] if begins else piece for piece in pieces if not begins or piece.startswith(begins)]
    plain = sorted({piece for piece in whole if re.fullmatch("[a-z]{2,}", piece)})
    if len(plain) < 100:
        raise ValueError(f"the vocabulary of {checkpoint} has {len(plain)} plain words: give texts with --texts")
    random.Random(SEED).shuffle(plain)
    return plain[:WORDS]


def mixed(vocabulary: list[str], count: int = COUNT) -> list[str]:
    """Distinct texts of mixed lengths in random order."""
    chance = random.Random(SEED)
    texts: dict[str, None] = {}
    while len(texts) < count:
        tokens = round(MEDIAN * math.exp(SIGMA * normal(chance)))
        texts[text_of(vocabulary, min(max(tokens, FEWEST), MOST), chance)] = None
    return list(texts)


def of_length(vocabulary: list[str], tokens: int, count: int) -> list[str]:
    """Texts that have about so many tokens; their words may be more than one each."""
    chance = random.Random(SEED + tokens)
    return [text_of(vocabulary, tokens, chance) for _ in range(count)]


def text_of(vocabulary: list[str], tokens: int, chance: random.Random) -> str:
    return " ".join(chance.choice(vocabulary) for _ in range(max(tokens - SPECIAL, 1)))


def normal(chance: random.Random) -> float:
    """Box and Muller's, from two uniform numbers: the library's own may change with its version."""
    return math.sqrt(-2 * math.log(1 - chance.random())) * math.cos(math.tau * chance.random())


def read(path: Path) -> list[str]:
    """The distinct texts of a file: one a line, or one JSON object with a `text` a line, as `sextant bench` reads them."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and lines[0].lstrip().startswith("{"):
        lines = [json.loads(line)["text"] for line in lines]
    texts = list(dict.fromkeys(text for text in lines if text.strip()))
    if not texts:
        raise ValueError(f"`{path}` has no texts")
    return texts


def write(path: Path, texts: list[str]) -> Path:
    """As JSON: a text may have more than one line, and its first may look like anything."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def lengths(ids: list[list[int]]) -> dict[str, float]:
    """What became of the distribution, in tokens."""
    counts = sorted(map(len, ids))
    at = lambda share: counts[round((len(counts) - 1) * share)]  # noqa: E731
    return {"texts": len(counts), "median": at(0.5), "p95": at(0.95), "max": counts[-1], "mean": sum(counts) / len(counts)}
