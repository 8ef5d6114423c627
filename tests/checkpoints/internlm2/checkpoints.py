"""InternLM2 checkpoints that a test shapes as it needs them, with weights in which every mistake shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.checkpoints._implied_tensors import internlm2_tensors
from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors = late("safetensors.torch")

TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def small_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "max_position_embeddings": 2048,
        "model_type": "internlm2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": 4864,
    } | changes


def write_checkpoint(directory: Path, tiny: Path, *, dtype: torch.dtype | None = None, **changes: Any) -> Path:
    """A checkpoint with the sizes of ``small_config(**changes)`` and the tokenizer of the made one in ``tiny``."""
    config = small_config(**changes)
    directory.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(tiny / name, directory / name)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # As published, the tokenizer is Python code in the checkpoint.
    change_json(
        directory / "tokenizer_config.json",
        tokenizer_class="InternLM2Tokenizer",
        auto_map={"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
    )
    write_weights(directory, config, dtype)
    return directory


def write_weights(directory: Path, config: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        # Norms and biases far from ones and zeros, so that none of them can go missing unseen.
        name: (torch.randn(shape, generator=generator) * 0.2 + ("norm" in name)).to(dtype or torch.float32)
        for name, shape in internlm2_tensors(config).items()
        if not (config["tie_word_embeddings"] and name == "output.weight")
    }
    safetensors.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def change_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite model.safetensors after ``change`` did something to the tensors."""
    tensors = safetensors.load_file(directory / "model.safetensors")
    change(tensors)
    safetensors.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), encoding="utf-8")
