"""The forward pass of a BERT encoder in PyTorch, from a checkpoint's safetensors: for machines that have PyTorch and nothing over it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A file of safetensors: the length of a JSON header, the header, the bytes."""
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        since, until = (begin + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(data[since:until], dtype=TYPES[entry["dtype"]])
        tensors[name.removeprefix("bert.")] = flat.reshape(entry["shape"])
    return tensors


def padded(rows: list[list[int]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, [B, S]."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids.to(device), mask.to(device)


class Bert:
    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype) -> None:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise ValueError("the forward pass for PyTorch alone is for BERT with gelu: install sentence-transformers")
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        tensors = read_tensors(checkpoint / "model.safetensors")
        self.weights = {name: one.to(device, dtype) for name, one in tensors.items() if one.is_floating_point()}

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (self.weights[f"{name}.LayerNorm.{which}"] for which in ("weight", "bias"))
        return functional.layer_norm(x, x.shape[-1:], weight, bias, self.epsilon)

    def attention(self, name: str, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = (self.linear(f"{name}.self.{part}", x) for part in ("query", "key", "value"))
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(batch, length, width)

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The last hidden state, [B, S, H], of ids and mask, [B, S]."""
        word, place, kind = (self.weights[f"embeddings.{of}_embeddings.weight"] for of in ("word", "position", "token_type"))
        x = self.norm("embeddings", word[ids] + place[: ids.shape[1]] + kind[0])
        seen = mask.bool()[:, None, None, :]
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            mixed = self.linear(f"{name}.attention.output.dense", self.attention(f"{name}.attention", x, seen))
            x = self.norm(f"{name}.attention.output", x + mixed)
            grown = functional.gelu(self.linear(f"{name}.intermediate.dense", x))
            x = self.norm(f"{name}.output", x + self.linear(f"{name}.output.dense", grown))
        return x
