#!/usr/bin/env python3
"""Exports the small encoder of tests/data/references/bert to ONNX in the forms that publishers do, with the vectors that they must give.

Run once after settings.py, from the repository's root, with `pip install torch transformers==5.24.0 sentence-transformers==6.2.0 onnx==1.23.2
onnxruntime==1.31.1`. The tests read the files and need none of these."""

import json
import pathlib

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel, AutoTokenizer

from settings import TARGET, TEXTS

OUT = TARGET / "exports"
NAMES = ("input_ids", "attention_mask", "token_type_ids")
NARROW = torch.randn(16, 6, generator=torch.Generator().manual_seed(3)) * 0.4


def mean(tokens, mask):
    mask = mask.unsqueeze(-1).float()
    return (tokens * mask).sum(1) / mask.sum(1)


class Export(torch.nn.Module):
    """The encoder with these outputs."""

    def __init__(self, encoder, outputs):
        super().__init__()
        self.encoder, self.outputs = encoder, outputs

    def forward(self, *inputs):
        given = dict(zip(NAMES, inputs))
        tokens = self.encoder(**given).last_hidden_state
        mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))
        return tuple(of(tokens, mask) for of in self.outputs.values())


OUTPUTS = {
    "mean": {"token_embeddings": lambda tokens, mask: tokens, "sentence_embedding": mean},
    "cls": {"token_embeddings": lambda tokens, mask: tokens, "sentence_embedding": lambda tokens, mask: tokens[:, 0]},
    "narrow": {"token_embeddings": lambda tokens, mask: tokens, "sentence_embedding": lambda tokens, mask: mean(tokens, mask) @ NARROW},
    "whole": {"sentence_embedding": lambda tokens, mask: torch.tanh(mean(tokens, mask) @ NARROW)},
    "tokens": {"last_hidden_state": lambda tokens, mask: tokens},
}


def export(encoder, name, inputs=NAMES, file=None):
    outputs = OUTPUTS[name]
    ids = torch.randint(5, 100, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    axes = {key: {0: "batch", 1: "sequence"} for key in inputs}
    axes |= {key: {0: "batch"} if key == "sentence_embedding" else {0: "batch", 1: "sequence"} for key in outputs}
    path = OUT / f"{file or name}.onnx"
    torch.onnx.export(Export(encoder, outputs).eval(), tuple(given[key] for key in inputs), str(path), input_names=list(inputs),
                      output_names=list(outputs), dynamic_axes=axes, opset_version=17, dynamo=False)
    return path


def main():
    OUT.mkdir(exist_ok=True)
    encoder = AutoModel.from_pretrained(TARGET / "bert", add_pooling_layer=False).eval()
    encoder.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(TARGET / "bert")
    for name in OUTPUTS:
        export(encoder, name)
    export(encoder, "tokens", ("input_ids",), "no_mask")
    fixed = onnx.load(OUT / "tokens.onnx")
    for given in fixed.graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, OUT / "fixed_batch.onnx")
    quantize_dynamic(OUT / "tokens.onnx", OUT / "quantized.onnx", weight_type=QuantType.QInt8)
    vectors = {name: [] for name in OUTPUTS}
    tokens = []
    for text in TEXTS:
        given = tokenizer(text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder(**given).last_hidden_state
            for name, outputs in OUTPUTS.items():
                of = outputs.get("sentence_embedding", mean)
                vectors[name].append(of(hidden, given["attention_mask"])[0].tolist())
        tokens.append(hidden[0].tolist())
    rounded = json.loads(json.dumps({"texts": TEXTS, "vectors": vectors, "tokens": tokens}), parse_float=lambda number: round(float(number), 8))
    (OUT / "expected.json").write_text(json.dumps(rounded, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
