"""Small LoRA adapters, as peft saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.checkpoints.checkpoints import write_json
from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors = late("safetensors.torch")

RANK, ALPHA = 4, 6
MODULE = "model.layers.0.attention.wqkv"


def lora_adapter(
    base: Path,
    directory: Path,
    *,
    module: str = MODULE,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    parts: Mapping[str, torch.Tensor | None] | None = None,
) -> Path:
    """A directory with an adapter for a made checkpoint.

    Args:
        base: The made checkpoint's directory.
        module: What it changes; its factors have the sizes of `MODULE`.
        settings: Beside or instead of the usual ones.
        parts: Tensors beside or instead of the usual ones; None leaves one out.
    """
    directory.mkdir()
    usual = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": [module], "bias": "none"}
    base_name = {"base_model_name_or_path": "someone/another-model"}
    write_json(directory / "adapter_config.json", {**usual, **base_name, **(settings or {})})
    outputs, inputs = safetensors.load_file(base / "model.safetensors")[f"{MODULE}.weight"].shape
    generator = torch.Generator().manual_seed(seed)
    held: dict[str, torch.Tensor | None] = {
        f"base_model.model.{module}.lora_A.weight": torch.randn(RANK, inputs, generator=generator),
        f"base_model.model.{module}.lora_B.weight": torch.randn(outputs, RANK, generator=generator),
        **(parts or {}),
    }
    kept = {name: part for name, part in held.items() if part is not None}
    safetensors.save_file(kept, directory / "adapter_model.safetensors")
    return directory
