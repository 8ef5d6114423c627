"""Checkpoints with 4-bit weights, as AutoAWQ and AutoGPTQ pack them, and the same values in full precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.checkpoints.checkpoints import write_json
from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors = late("safetensors.torch")

GROUP = 128
ZERO = 8
SETTINGS = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False},
}
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def quantized(directory: Path, target: Path, method: str | None) -> Path:
    """A copy of a checkpoint whose projections have 4-bit values: packed by a method, or None: in full precision."""
    shutil.copytree(directory, target)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in safetensors.load_file(directory / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight
            continue
        grouped = weight.float().unflatten(1, (-1, GROUP))
        scales = (grouped.abs().amax(2, keepdim=True) / 7).clamp(min=1e-6).half()
        values = (grouped / scales.float()).round().clamp(-7, 7)
        if method is None:
            tensors[name] = (values * scales.float()).flatten(1).to(weight.dtype)
            continue
        module = name.removesuffix(".weight")
        columns = (values.flatten(1).int() + ZERO).T
        zeros = torch.full((grouped.shape[1], grouped.shape[0]), ZERO if method == "awq" else ZERO - 1)
        order = _AWQ_ORDER if method == "awq" else range(8)
        tensors[f"{module}.qweight"] = _packed(columns, 1, order) if method == "awq" else _packed(columns, 0, order)
        tensors[f"{module}.qzeros"] = _packed(zeros, 1, order)
        tensors[f"{module}.scales"] = scales.squeeze(2).T.contiguous()
        if method == "gptq":
            tensors[f"{module}.g_idx"] = torch.arange(weight.shape[1], dtype=torch.int32) // GROUP
    safetensors.save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    if method is not None:
        config = json.loads((directory / "config.json").read_text())
        write_json(target / "config.json", {**config, "quantization_config": SETTINGS[method]})
    return target


def _packed(values: torch.Tensor, dimension: int, order: range | tuple[int, ...]) -> torch.Tensor:
    """Eight 4-bit numbers in each int32, along a dimension."""
    eights = values.movedim(dimension, -1).unflatten(-1, (-1, 8)).long()
    words = sum(eights[..., number] << 4 * place for place, number in enumerate(order))
    assert isinstance(words, torch.Tensor)
    return torch.where(words >= 2**31, words - 2**32, words).int().movedim(-1, dimension).contiguous()
