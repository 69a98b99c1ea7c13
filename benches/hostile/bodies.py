"""Bodies of requests, made once before they are sent."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator

MODEL = "minilm"
# Words that BERT's vocabulary has whole, so that a text has as many tokens as words and two more.
WORDS = """
    house river stone light green table paper music water night summer winter garden letter window market doctor animal yellow silver engine
    bridge forest island mother father sister brother street city village mountain valley ocean desert storm cloud snow rain wind fire earth
    metal glass wood cotton bread butter cheese apple orange lemon sugar salt pepper coffee milk wine beer chair desk lamp clock door wall
    floor roof kitchen bedroom office school church hotel hospital station airport train plane ship boat car truck horse cow dog cat bird fish
    tree flower grass leaf root seed fruit king queen prince soldier farmer teacher student lawyer writer artist
""".split()
# Words that tell a text from all others, and texts of a seed.
DIGITS, MOST = 3, 2048
# The field of the inputs, where it is not `input`.
FIELDS = {"/embed": "inputs", "/embed_all": "inputs", "/tokenize": "inputs"}


def body(path: str, inputs, **more) -> bytes:
    """A request of `inputs` to one of the routes that take texts."""
    model = {"model": MODEL} if path.startswith("/v1/") else {}
    return json.dumps(model | {FIELDS.get(path, "input"): inputs, **more}).encode()


def texts(count: int, words: int, seed: int) -> list[str]:
    """So many texts of so many words, three at least; no two of them, or of another seed, are equal. `count` is 2,048 at most."""
    drawn = random.Random(seed)
    numbers = range(MOST * seed, MOST * seed + count)
    return [" ".join([*drawn.choices(WORDS, k=words - DIGITS), *digits(number)]) for number in numbers]


def digits(number: int) -> list[str]:
    """The number in words, to the base of how many there are: shorter than its own digits, in tokens."""
    base = len(WORDS)
    if number >= base**DIGITS:
        raise ValueError(f"{number} is no number of {DIGITS} words: a seed is {base**DIGITS // MOST - 1} at most")
    return [WORDS[number // base**place % base] for place in range(DIGITS)]


def recipe(path: str, kind: str, amount: int = 0, words: int = 1, first: int = 100, given: list[str] = (), **more) -> Iterator[bytes]:
    """Bodies of one kind, without end: `equal`, `amount` times the same text; `distinct`, as many texts of `words` words, others in each
    body, from the seed `first` on; `word`, a word of `amount` bytes; `marks`, as many tokens of one byte each; `characters`, tokens of three
    bytes each; `given`, those in turns."""
    match kind:
        case "distinct":
            return (body(path, texts(amount, words, seed), **more) for seed in itertools.count(first))
        case "given":
            return itertools.cycle(one.encode() for one in given)
        case _:
            inputs = {"equal": ["hello world"] * amount, "word": "x" * amount, "marks": "!" * amount, "characters": "\u4e2d" * (amount // 3)}[kind]
            return itertools.repeat(body(path, inputs, **more))
