"""InternLM2's forward pass, written from the model's definition and straight from its own tensors.

It shares nothing with the rewrite or with transformers: heads are cut out of the fused wqkv one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def internlm2_logits(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """The logits after every one of ``ids``: shape (len(ids), vocab_size), in double precision."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    epsilon = config["rms_norm_eps"]
    x = weights["model.tok_embeddings.weight"][ids]
    for n in range(config["num_hidden_layers"]):
        layer = {
            name.removeprefix(f"model.layers.{n}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.layers.{n}.")
        }
        x = x + _attention(config, layer, _rms_norm(x, layer["attention_norm.weight"], epsilon))
        h = _rms_norm(x, layer["ffn_norm.weight"], epsilon)
        gate, up = h @ layer["feed_forward.w1.weight"].T, h @ layer["feed_forward.w3.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ layer["feed_forward.w2.weight"].T
    x = _rms_norm(x, weights["model.norm.weight"], epsilon)
    return x @ weights["model.tok_embeddings.weight" if config["tie_word_embeddings"] else "output.weight"].T


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return weight * x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + epsilon)


def _attention(config: Mapping[str, Any], layer: Mapping[str, torch.Tensor], h: torch.Tensor) -> torch.Tensor:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    d = config["hidden_size"] // heads
    fused = h @ layer["attention.wqkv.weight"].T
    if "attention.wqkv.bias" in layer:
        fused = fused + layer["attention.wqkv.bias"]
    slots = list(fused.split(d, dim=-1))
    length = len(h)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    outputs = []
    for _ in range(kv_heads):
        queries = [slots.pop(0) for _ in range(heads // kv_heads)]
        key, value = _rotated(config, slots.pop(0)), slots.pop(0)
        for query in queries:
            scores = _rotated(config, query) @ key.T / d**0.5
            outputs.append(torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ value)
    mixed = torch.cat(outputs, dim=-1) @ layer["attention.wo.weight"].T
    return mixed + layer["attention.wo.bias"] if "attention.wo.bias" in layer else mixed


def _rotated(config: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of one head, (length, head_dim), in the half-split layout."""
    length, d = x.shape
    base, positions = float(config["rope_theta"]), torch.arange(length, dtype=torch.float64)
    scaling = config["rope_scaling"] or {"type": None}
    if scaling["type"] == "linear":
        positions = positions / scaling["factor"]
    if scaling["type"] == "dynamic" and length > config["max_position_embeddings"]:
        factor, trained = scaling["factor"], config["max_position_embeddings"]
        base *= (factor * length / trained - (factor - 1)) ** (d / (d - 2))
    angles = positions[:, None] * base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    first, second = x[:, : d // 2], x[:, d // 2 :]
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], dim=-1
    )
