"""Bodies of requests, made once before they are sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

MODEL = "minilm"
# Words that BERT's vocabulary has whole, so that a text has as many tokens as words and two more.
WORDS = ("house river stone light green table paper music water night summer winter garden letter window market doctor animal yellow silver "
         "engine bridge forest island mother father sister brother street city village mountain valley ocean desert storm cloud snow rain wind "
         "fire earth metal glass wood cotton bread butter cheese apple orange lemon sugar salt pepper coffee milk wine beer chair desk lamp clock "
         "door wall floor roof kitchen bedroom office school church hotel hospital station airport train plane ship boat car truck horse cow dog "
         "cat bird fish tree flower grass leaf root seed fruit king queen prince soldier farmer teacher student lawyer writer artist").split()  # fmt: skip
# The field of the inputs, where it is not `input`.
FIELDS = {"/embed": "inputs", "/embed_all": "inputs", "/tokenize": "inputs"}


def body(path: str, inputs, **more) -> bytes:
    """A request of `inputs` to one of the routes that take texts."""
    model = {"model": MODEL} if path.startswith("/v1/") else {}
    return json.dumps(model | {FIELDS.get(path, "input"): inputs, **more}).encode()


def texts(count: int, words: int, seed: int) -> list[str]:
    """So many texts of so many words; no two of them, or of another seed, are equal."""
    drawn = random.Random(seed)
    # A number is one token up to 9999 or a few.
    return [" ".join([*drawn.choices(WORDS, k=words - 1), str(seed * 10_000 + number)]) for number in range(count)]


def recipe(path: str, kind: str, amount: int, words: int = 1, first: int = 0, **more) -> Iterator[bytes]:
    """Bodies of one kind, without end: `equal`, `amount` times the same text; `distinct`, as many texts of `words` words, others in each
    body, from the seed `first` on; `word`, a word of `amount` bytes; `marks`, as many tokens of one byte each."""
    if kind == "distinct":
        while True:
            first += 1
            yield body(path, texts(amount, words, first), **more)
    inputs = {"equal": ["hello world"] * amount, "word": "x" * amount, "marks": "!" * amount}[kind]
    same = body(path, inputs, **more)
    while True:
        yield same
