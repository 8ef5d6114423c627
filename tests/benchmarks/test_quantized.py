"""The quantized checkpoints of the check on a GPU are laid out as public ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors, checkpoints = late("safetensors.torch"), late("benchmarks.gpu.quantized")

_AUTOAWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""AutoAWQ's ``AWQ_REVERSE_ORDER``: where column n of eight stands in an int32."""


@pytest.fixture
def weight() -> torch.Tensor:
    values = torch.randn(256, 384, generator=torch.Generator().manual_seed(0)) * 0.02
    values[:2] = 0  # as rows of a made checkpoint are
    return values


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """(rows, columns / 8) int32 → (rows, columns) of 0 to 15."""
    return ((packed.unsqueeze(-1) >> (4 * torch.tensor(_AUTOAWQ_ORDER))) & 15).flatten(1)


def test_awq_gives_every_weight_back_within_half_a_step(weight: torch.Tensor) -> None:
    stored = checkpoints.awq(weight)
    scales = stored["scales"].float().repeat_interleave(128, 0)
    zeros = unpacked(stored["qzeros"]).repeat_interleave(128, 0)
    back = (unpacked(stored["qweight"]) - zeros) * scales
    assert ((back.T - weight).abs() <= 0.51 * scales.T).all()
    assert (back.T[:2] == 0).all()


def test_fp8_gives_every_weight_back_within_its_three_bits(weight: torch.Tensor) -> None:
    stored = checkpoints.fp8(weight)
    scales = stored["weight_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
    difference = (stored["weight"].float() * scales - weight).abs()
    assert (difference <= weight.abs() / 16 + scales * 2**-9).all()


def test_a_checkpoint_keeps_everything_but_its_layers_matrices(tmp_path: Path, tiny: Path) -> None:
    before = safetensors.load_file(tiny / "model.safetensors")
    after = safetensors.load_file(checkpoints.quantized(tiny, tmp_path / "fp8", "fp8") / "model.safetensors")
    assert torch.equal(after["output.weight"], before["output.weight"])
    assert after["model.layers.0.attention.wqkv.weight"].dtype == torch.float8_e4m3fn
    settings = json.loads((tmp_path / "fp8" / "config.json").read_text())["quantization_config"]
    assert (settings["quant_method"], settings["weight_block_size"]) == ("fp8", [128, 128])
