"""LoRA adapters: held against the base by their headers, and merged into it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.checkpoints.adapter import inspect_adapter, merge_adapter
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_json
from tests.checkpoints.lora import ALPHA, MODULE, RANK, lora_adapter

WHOLE = f"{MODULE}.weight"

Parts = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tiny: Path) -> Checkpoint:
    return inspect_checkpoint(tiny)


@pytest.fixture(scope="module")
def weights(base: Checkpoint) -> Parts:
    return {name: tensor for file in base.weight_files for name, tensor in load_file(file).items()}


@pytest.fixture
def save(tmp_path: Path, base: Checkpoint) -> Callable[..., Path]:
    """Saves an adapter as peft does; what is given takes the place of what a usual one holds."""

    def saved(
        settings: Mapping[str, Any] | None = None, parts: Mapping[str, torch.Tensor | None] | None = None
    ) -> Path:
        return lora_adapter(base.path, tmp_path / "adapter", settings=settings or {}, parts=parts or {})

    return saved


def merged(base: Checkpoint, directory: Path) -> tuple[Path, Parts]:
    made = merge_adapter(base, inspect_adapter(directory, base), directory.parent / "cache")
    return made, {
        name: tensor for file in inspect_checkpoint(made).weight_files for name, tensor in load_file(file).items()
    }


def factors(directory: Path) -> tuple[torch.Tensor, torch.Tensor]:
    parts = load_file(directory / "adapter_model.safetensors")
    return parts[f"base_model.model.{MODULE}.lora_B.weight"].float(), parts[
        f"base_model.model.{MODULE}.lora_A.weight"
    ].float()


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        pytest.param({}, ALPHA / RANK, id="alpha-over-rank"),
        pytest.param({"use_rslora": True}, ALPHA / RANK**0.5, id="rank-stabilized"),
        pytest.param({"alpha_pattern": {"attention.wqkv": 2}}, 2 / RANK, id="alpha-of-the-module"),
        pytest.param(
            {"r": 64, "rank_pattern": {"^model.layers.0.attention.wqkv": RANK}}, ALPHA / RANK, id="rank-of-it"
        ),
    ],
)
def test_the_product_of_the_factors_is_added_to_the_tensor_it_was_trained_for_and_to_no_other(
    base: Checkpoint, weights: Parts, save: Callable[..., Path], settings: dict[str, Any], scale: float
) -> None:
    adapter = save(settings)
    b, a = factors(adapter)

    _, found = merged(base, adapter)

    expected = (weights[WHOLE].float() + b @ a * scale).to(weights[WHOLE].dtype)
    assert torch.equal(found[WHOLE], expected)
    assert not torch.equal(found[WHOLE], weights[WHOLE])
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights if name != WHOLE)


def test_tensors_that_were_trained_as_a_whole_take_the_place_of_the_bases(
    base: Checkpoint, weights: Parts, save: Callable[..., Path]
) -> None:
    head = torch.ones_like(weights["output.weight"])
    norm = torch.full_like(weights["model.norm.weight"], 3)

    _, found = merged(
        base,
        save(
            {"modules_to_save": ["output", "norm"]},
            {
                "base_model.model.output.weight": head,
                "base_model.model.model.norm.modules_to_save.default.weight": norm,  # as older releases of peft save it
            },
        ),
    )

    assert torch.equal(found["output.weight"], head)
    assert torch.equal(found["model.norm.weight"], norm)


def test_the_merged_directory_is_a_checkpoint_with_the_bases_files_and_the_adapters_tokenizer(
    base: Checkpoint, save: Callable[..., Path]
) -> None:
    adapter = save()
    (adapter / "tokenizer.model").write_bytes((base.path / "tokenizer.model").read_bytes())
    settings = json.loads((base.path / "tokenizer_config.json").read_text()) | {"trained": True}
    write_json(adapter / "tokenizer_config.json", settings)
    (adapter / "README.md").write_text("---\nlibrary_name: peft\n---\n")

    made, _ = merged(base, adapter)

    assert (made / "config.json").read_bytes() == (base.path / "config.json").read_bytes()
    assert json.loads((made / "tokenizer_config.json").read_text())["trained"]
    assert not (made / "README.md").exists()
    assert inspect_checkpoint(made).architecture == base.architecture


def test_it_is_merged_once(base: Checkpoint, save: Callable[..., Path], tmp_path: Path) -> None:
    adapter = inspect_adapter(save(), base)
    said: list[str] = []
    first = merge_adapter(base, adapter, tmp_path / "cache", say=said.append)
    assert any(line.startswith("merging, file 1 of") for line in said)

    again: list[str] = []
    assert merge_adapter(base, adapter, tmp_path / "cache", say=again.append) == first
    assert not any(line.startswith("merging") for line in again)
    assert again[-1] == f"using the merged checkpoint in {first}"


LORA_A = f"base_model.model.{MODULE}.lora_A.weight"
LORA_B = f"base_model.model.{MODULE}.lora_B.weight"


@pytest.mark.parametrize(
    ("settings", "parts", "told"),
    [
        pytest.param({"peft_type": "IA3"}, {}, "is not a LoRA adapter but IA3", id="another-method"),
        pytest.param({"use_dora": True}, {}, "uses DoRA", id="dora"),
        pytest.param({"init_lora_weights": "pissa_niter_16"}, {}, "changes the base's weights", id="pissa"),
        pytest.param(
            {"alpha_pattern": {".*wqkv": 3}}, {}, "alpha_pattern has entries that are not module names", id="pattern"
        ),
        pytest.param({"r": 8}, {}, "gives .* rank 8 .* its weights have rank 4", id="another-rank"),
        pytest.param({}, {LORA_B: None}, "only one of its two factors", id="half"),
        pytest.param({}, {LORA_A: torch.zeros(RANK, 7)}, "its factors are", id="another-width"),
        pytest.param(
            {}, {"base_model.model.model.layers.99.attention.wo.lora_A.weight": torch.zeros(4, 4)}, "has no", id="layer"
        ),
        pytest.param({}, {"base_model.model.output.weight": torch.zeros(3, 3)}, "cannot be placed", id="resized"),
        pytest.param(
            {}, {LORA_A: None, LORA_B: None, "base_model.model.model.norm.weight": torch.zeros(1)}, "fit", id="none"
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_written(
    base: Checkpoint, save: Callable[..., Path], settings: dict[str, Any], parts: dict[str, Any], told: str
) -> None:
    with pytest.raises(CheckpointError, match=told) as caught:
        inspect_adapter(save(settings, parts), base)
    assert caught.value.remedy


def test_a_directory_that_is_no_adapter_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json") as caught:
        inspect_adapter(base.path, base)
    assert caught.value.remedy == "Give a whole model as MODEL_DIR, without --adapter."
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA"})
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        inspect_adapter(tmp_path, base)
