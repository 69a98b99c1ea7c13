"""Checkpoints that take time or memory without end when they are imported. Each is made of the real one, in a folder of its own."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable

import onnx_file as onnx

WIDTH = 384
LEVELS, CALLS = 10, 10


def export(source: pathlib.Path, folder: pathlib.Path, nodes: list[bytes], constants: list[bytes], functions: list[bytes] = ()) -> None:
    """An export in place of the weights: vectors of the tokens' ids, to which the value `added` of `nodes` is added. They may use `before`."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    made = [
        onnx.node("Cast", ["input_ids"], "numbers", onnx.int_attribute("to", onnx.FLOAT)),
        onnx.node("Unsqueeze", ["numbers", "axis"], "column"),
        onnx.node("Mul", ["column", "waves"], "angles"),
        onnx.node("Sin", ["angles"], "before"),
        *nodes,
        onnx.node("Add", ["before", "added"], "last_hidden_state"),
    ]
    waves = onnx.floats("waves", *(0.001 * (number + 1) for number in range(WIDTH)))
    inputs = [onnx.value(name, onnx.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
    output = onnx.value("last_hidden_state", onnx.FLOAT, ["batch", "tokens", WIDTH])
    graph = onnx.graph("hostile", made, inputs, [output], [onnx.integers("axis", [1], 2), waves, *constants])
    (folder / "model.onnx").write_bytes(onnx.model(graph, *functions))


def endless(source: pathlib.Path, folder: pathlib.Path, times: int = (1 << 63) - 1) -> None:
    """A loop that adds nothing."""
    body = onnx.graph(
        "body",
        [onnx.node("Identity", ["again"], "and_again"), onnx.node("Add", ["sum", "nothing"], "next_sum")],
        [onnx.value("turn", onnx.INT64, []), onnx.value("again", onnx.BOOL, []), onnx.value("sum", onnx.FLOAT, [1])],
        [onnx.value("and_again", onnx.BOOL, []), onnx.value("next_sum", onnx.FLOAT, [1])],
    )
    loop = onnx.node("Loop", ["times", "true", "nothing"], "added", onnx.graph_attribute("body", body))
    constants = [onnx.integers("times", [], times), onnx.tensor("true", onnx.BOOL, [], b"\1"), onnx.floats("nothing", 0.0)]
    export(source, folder, [loop], constants)


def nested(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Functions that each call the one before ten times: 10^10 nodes once they are unfolded."""

    def level(number: int) -> bytes:
        called, domain = ("Identity", "") if number == 0 else (f"f{number - 1}", "nested")
        chain = ["x", *(f"v{step}" for step in range(CALLS - 1)), "y"]
        calls = [onnx.node(called, [before], after, domain=domain) for before, after in zip(chain, chain[1:])]
        return onnx.function("nested", f"f{number}", calls)

    call = onnx.node(f"f{LEVELS - 1}", ["before"], "added", domain="nested")
    export(source, folder, [call], [], [level(number) for number in range(LEVELS)])


def growing(source: pathlib.Path, folder: pathlib.Path) -> None:
    """A normaliser of 900 bytes that makes gigabytes of a sentence."""
    shutil.copytree(source, folder)
    config, file = folder / "tokenizer_config.json", folder / "tokenizer.json"
    # A class without rules of its own, which would put its own normaliser in place of this one.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 12}
    tokenizer = json.loads(file.read_text()) | {"normalizer": {"type": "Sequence", "normalizers": [step] * 9}}
    file.write_text(json.dumps(tokenizer))


HOSTILE: dict[str, Callable[[pathlib.Path, pathlib.Path], None]] = {
    "a graph with a loop that never ends": endless,
    "functions that call each other 10^10 times": nested,
    "a normaliser of 900 bytes that makes gigabytes of a sentence": growing,
}
