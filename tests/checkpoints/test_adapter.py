"""LoRA adapters: held against their configuration and the base, and merged into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.checkpoints._lora_config import LoraConfig, read_lora_config
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints.adapter import inspect_adapter
from bundle.checkpoints.merge import link_unmerged, merge_adapter
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_json
from tests.checkpoints.lora import ALPHA, MODULE, RANK, lora_adapter
from tests.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")
safetensors = late("safetensors.torch")

WHOLE = f"{MODULE}.weight"

EMBEDDINGS = "model.tok_embeddings.weight"
Parts = dict[str, "torch.Tensor"]


@pytest.fixture(scope="module")
def base(tiny: Path) -> Checkpoint:
    return inspect_checkpoint(tiny)


def with_tensors(base: Checkpoint, tensors: Mapping[str, StoredTensor]) -> Checkpoint:
    return replace(base, weights=replace(base.weights, tensors=tensors))


@pytest.fixture(scope="module")
def weights(base: Checkpoint) -> Parts:
    return {name: tensor for file in base.weights.files for name, tensor in safetensors.load_file(file).items()}


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
        name: tensor
        for file in inspect_checkpoint(made).weights.files
        for name, tensor in safetensors.load_file(file).items()
    }


def factors(directory: Path) -> tuple[torch.Tensor, torch.Tensor]:
    parts = safetensors.load_file(directory / "adapter_model.safetensors")
    return parts[f"base_model.model.{MODULE}.lora_B.weight"].float(), parts[
        f"base_model.model.{MODULE}.lora_A.weight"
    ].float()


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        pytest.param({}, ALPHA / RANK, id="alpha-over-rank"),
        pytest.param({"use_rslora": True}, ALPHA / RANK**0.5, id="rank-stabilized"),
        pytest.param({"alpha_pattern": {"attention.wqkv": 2}}, 2 / RANK, id="alpha-of-the-module"),
        pytest.param({"alpha_pattern": {r"layers\.[0-3]\.(attention|x).*": 3}}, 3 / RANK, id="alpha-by-expression"),
        pytest.param({"alpha_pattern": None, "rank_pattern": None}, ALPHA / RANK, id="no-patterns"),
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


def test_what_is_added_to_an_output_layer_is_added_to_the_one_that_the_adapter_brings(
    base: Checkpoint, weights: Parts, save: Callable[..., Path]
) -> None:
    """peft saves both as soon as it is targeted."""
    rows, columns = weights["output.weight"].shape
    a, b, own = torch.randn(RANK, columns), torch.randn(rows, RANK), torch.ones(rows, columns)
    head = {"lora_A.weight": a, "lora_B.weight": b, "base_layer.weight": own}

    _, found = merged(
        base,
        save(
            {"target_modules": [MODULE, "output"]},
            {f"base_model.model.output.{name}": part for name, part in head.items()},
        ),
    )

    assert torch.equal(found["output.weight"], (own + b @ a * ALPHA / RANK).to(torch.bfloat16))


def test_factors_of_embeddings_are_merged_transposed(
    base: Checkpoint, weights: Parts, save: Callable[..., Path]
) -> None:
    name = "model.tok_embeddings.weight"
    tokens, width = weights[name].shape
    a, b = torch.randn(RANK, tokens), torch.randn(width, RANK)
    prefix = "base_model.model.model.tok_embeddings.lora_embedding_"

    _, found = merged(base, save({"target_modules": [MODULE, "tok_embeddings"]}, {f"{prefix}A": a, f"{prefix}B": b}))

    assert torch.equal(found[name], weights[name] + (b @ a * ALPHA / RANK).T.to(torch.bfloat16))


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


def test_further_chat_templates_of_the_base_stay_unless_the_adapter_brings_a_tokenizer(
    base: Checkpoint, save: Callable[..., Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(base.path, tmp_path / "model"))
    template = model / "additional_chat_templates" / "default.jinja"
    template.parent.mkdir()
    template.write_text("{{ messages }}")
    adapter = save()
    made, _ = merged(inspect_checkpoint(model), adapter)
    assert (made / template.relative_to(model)).read_text() == "{{ messages }}"

    (made / template.relative_to(model)).unlink()  # as a tool that cleans the cache does
    made, _ = merged(inspect_checkpoint(model), adapter)
    assert (made / template.relative_to(model)).exists()

    shutil.copy(model / "tokenizer.json", adapter)
    made, _ = merged(inspect_checkpoint(model), adapter)
    assert not (made / template.relative_to(model)).exists()


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
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "IA3"}, "is not a LoRA adapter but IA3"),
        ({"peft_type": None}, "names no peft_type"),
        ({"task_type": "SEQ_CLS"}, "is for a classifier or a reward model"),
        ({"use_dora": True}, "uses DoRA"),
        ({"lora_bias": True}, "has biases of its own"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "changes parameters that are not modules"),
        (
            {"init_lora_weights": "pissa_niter_16"},
            "was initialized by pissa_niter_16, which changes the base's weights",
        ),
        ({"lora_alpha": NAN}, "'lora_alpha': must be a finite number, not nan"),
        ({"lora_alpha": INFINITE}, "'lora_alpha': must be a finite number, not inf"),
        ({"lora_alpha": 0}, "'lora_alpha': must be greater than 0, not 0"),
        ({"lora_alpha": -6}, "'lora_alpha': must be greater than 0, not -6"),
        ({"lora_alpha": 1e300}, "'lora_alpha': must be at most 1e+06, not 1e+300"),
        ({"lora_alpha": "6"}, "'lora_alpha': must be a valid number, not '6'"),
        ({"lora_alpha": None}, "'lora_alpha': must be a valid number"),
        ({"r": "4"}, "'r': must be a valid integer, not '4'"),
        ({"r": 0}, "'r': must be at least 1, not 0"),
        ({"r": -4}, "'r': must be at least 1, not -4"),
        ({"r": 10**9}, f"gives {MODULE} rank 1000000000; its weights have rank 4"),
        ({"rank_pattern": {"wqkv": 8}}, f"gives {MODULE} rank 8; its weights have rank 4"),
        ({"rank_pattern": {"wqkv": 4.5}}, "'rank_pattern.wqkv': must be a valid integer, not 4.5"),
        ({"rank_pattern": [4]}, "'rank_pattern': must be a JSON object, not [4]"),
        ({"alpha_pattern": {"wqkv": NAN}}, "'alpha_pattern.wqkv': must be a finite number, not nan"),
        ({"alpha_pattern": {"(": 6}}, "'alpha_pattern': '(' is not a valid regular expression"),
        ({"use_rslora": "yes"}, "'use_rslora': must be a valid boolean, true or false, not 'yes'"),
        ({"bias": "some"}, "'bias': must be 'none' or 'all' or 'lora_only'"),
        ({"target_modules": ["wo"]}, f"holds factors of {MODULE}, but adapter_config.json does not target it"),
        ({"target_modules": []}, "does not target it (target_modules: none)"),
        ({"target_modules": "wqkv"}, "does not target it (target_modules: 'wqkv')"),
        ({"target_modules": r".*\.(wo|w1)"}, "does not target it"),
        ({"target_modules": "((("}, "'target_modules': '(((' is not a valid regular expression"),
        ({"target_modules": "a{9999999999}"}, "'target_modules': 'a{9999999999}' is not a valid regular expression"),
        ({"target_modules": "(" * 10**5}, "is not a valid regular expression"),
        ({"lora_alpha": 10**400}, "'lora_alpha': must be"),
        ({"target_modules": 4}, "'target_modules': must be a list of module names, or a regular expression, not 4"),
        ({"exclude_modules": "wqkv|.*0.*"}, "does not target it"),
        ({"layers_to_transform": [1], "target_modules": ["wqkv"]}, "does not target it"),
        ({"modules_to_save": ["wqkv"]}, "does not target it"),
        (
            {"target_modules": ["wqkv"]},
            "lacks the factors of 1 of the 2 modules that adapter_config.json targets: model.l",
        ),
        ({"target_modules": None}, "lacks the factors of 1 of the 2 modules"),
        ({"target_modules": "all-linear"}, "lacks the factors of 9 of the 10 modules"),
        ({"target_modules": r"model.*attention\.w.*"}, "lacks the factors of 3 of the 4 modules"),
        ({"modules_to_save": ["output"]}, "lacks output, one of modules_to_save"),
    ],
    ids=lambda one: str(one)[:60],
)
def test_a_configuration_that_cannot_be_that_of_the_weights_is_refused(
    base: Checkpoint, save: Callable[..., Path], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        inspect_adapter(save(settings), base)
    assert told in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["wqkv"], "layers_to_transform": [0]},
        {"target_modules": ["wqkv"], "layers_to_transform": 0, "layers_pattern": "layers"},
        {"target_modules": ["wqkv"], "layers_to_transform": [0], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["wqkv"], "exclude_modules": ["layers.1.attention.wqkv"]},
        {"target_modules": r"model\.layers\.0\.attention\.wqkv"},
        {"target_modules": [MODULE], "layers_to_transform": [1]},  # a whole name is taken as it is
        {"target_modules": None, "layers_to_transform": [0]},
        {"init_lora_weights": "gaussian", "lora_alpha": 0.5, "task_type": "CAUSAL_LM", "peft_version": "0.21.2"},
    ],
    ids=str,
)
def test_a_configuration_that_is_that_of_the_weights_is_taken(
    base: Checkpoint, save: Callable[..., Path], settings: dict[str, Any]
) -> None:
    assert list(inspect_adapter(save(settings), base).products) == [WHOLE]


def filled(value: float, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Factors of which a single value is this one."""
    factor = torch.ones(RANK, RANK, dtype=dtype)
    factor[1, 2] = value
    return factor


@pytest.mark.parametrize(
    ("parts", "told", "remedy"),
    [
        (lambda: {LORA_B: None}, f"lacks lora_B of {MODULE}", "The file is incomplete"),
        (lambda: {LORA_A: None}, f"lacks lora_A of {MODULE}", "The file is incomplete"),
        (lambda: {LORA_A: torch.zeros(0)}, f"holds no values of {LORA_A}", "stage3_gather"),
        (lambda: {LORA_A: filled(NAN)}, f"{LORA_A} holds values that are not finite", "diverged"),
        (lambda: {LORA_A: filled(-INFINITE, torch.bfloat16)}, f"{LORA_A} holds values that are not finite", "diverged"),
        (lambda: {LORA_A: filled(INFINITE, torch.float16)}, f"{LORA_A} holds values that are not finite", "diverged"),
        (lambda: {LORA_A: filled(NAN, torch.float64)}, f"{LORA_A} holds values that are not finite", "diverged"),
        (lambda: {LORA_A: torch.ones(RANK, 7, dtype=torch.int32)}, f"{LORA_A} is I32, not floating point", "bfloat16"),
        (lambda: {LORA_A: torch.zeros(RANK, 7)}, "its factors are", "base model"),
        (lambda: {LORA_A: torch.zeros(RANK)}, "its factors are", "base model"),
        (lambda: {LORA_A: torch.tensor(1.0)}, "its factors are", "base model"),
        (
            lambda: {LORA_A.replace("0", "99", 1): torch.ones(4, 4)},
            "the model has no model.layers.99.attention.wqkv.weight",
            "base model",
        ),
        (
            lambda: {"base_model.model.output.weight": torch.ones(4, 4)},
            "output.weight is [4864, 512], the adapter's is [4, 4]",
            "if its vocabulary was resized",
        ),
        (
            lambda: {f"base_model.model.{MODULE}.lora_magnitude_vector": torch.ones(4, 4)},
            "the model has no",
            "base model",
        ),
        (
            lambda: {f"base_model.model.model.layers.{n}.norm.weight": torch.ones(4) for n in range(40, 90)},
            "no model.layers.40.norm.weight, model.layers.41.norm.weight, model.layers.42.norm.weight and 47 more.",
            "base model",
        ),
        (lambda: {LORA_A: None, LORA_B: None}, "holds no tensors", "again"),
        (
            lambda: {LORA_A.replace(".weight", ".default.weight"): torch.zeros(RANK, 7), LORA_A: None},
            "the model has no",
            "unwrap_model(model).save_pretrained",
        ),
        (
            lambda: {f"base_model.model._orig_mod.{MODULE}.lora_{part}.weight": torch.ones(4, 4) for part in "AB"},
            "the model has no _orig_mod.",
            "unwrap_model(model).save_pretrained",
        ),
    ],
)
def test_weights_that_cannot_be_merged_are_refused_before_anything_is_written(
    base: Checkpoint, save: Callable[..., Path], parts: Callable[[], dict[str, Any]], told: str, remedy: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        inspect_adapter(save({}, parts()), base)
    assert told in caught.value.message
    assert remedy in (caught.value.remedy or "")


def test_what_the_factors_make_of_a_tensor_must_be_finite_too(base: Checkpoint, save: Callable[..., Path]) -> None:
    large = {LORA_A: torch.full((RANK, weights_shape(base)[1]), 1e30)}
    adapter = save({}, large | {LORA_B: torch.full((weights_shape(base)[0], RANK), 1e30)})
    with pytest.raises(CheckpointError, match=f"{WHOLE} is not finite any more"):
        merged(base, adapter)
    assert not any((adapter.parent / "cache").glob("*/model.safetensors"))


def weights_shape(base: Checkpoint) -> tuple[int, ...]:
    return base.weights.tensors[WHOLE].shape


@pytest.mark.parametrize(
    ("settings", "zeroed", "told"),
    [
        ({}, None, "the adapter was trained on someone/another-model, according to its config, not on "),
        ({"base_model_name_or_path": "internlm/Tiny"}, None, ""),
        ({"base_model_name_or_path": None}, None, ""),
        ({"base_model_name_or_path": None}, LORA_B, "warning: the adapter changes nothing: all of its lora_B"),
        ({"base_model_name_or_path": None}, LORA_A, "warning: the adapter changes nothing: "),
    ],
)
def test_what_the_user_should_know_of_an_adapter_is_said(
    base: Checkpoint, save: Callable[..., Path], settings: dict[str, Any], zeroed: str | None, told: str
) -> None:
    parts = {}
    if zeroed is not None:
        rows, columns = weights_shape(base)
        parts[zeroed] = torch.zeros(*((rows, RANK) if zeroed == LORA_B else (RANK, columns)))
    notes = inspect_adapter(save(settings, parts), base).notes
    assert "; ".join(notes).startswith(told)
    assert len(notes) == bool(told)


def test_an_adapter_is_not_merged_twice(base: Checkpoint, save: Callable[..., Path], tmp_path: Path) -> None:
    adapter, made = save(), tmp_path / "merged"
    shutil.copytree(base.path, made)
    shutil.copy(adapter / "adapter_config.json", made)

    with pytest.raises(CheckpointError, match=r"is merged into .*/merged already") as caught:
        inspect_adapter(adapter, inspect_checkpoint(made))
    assert "without --adapter" in str(caught.value.remedy)
    write_json(made / "adapter_config.json", {"peft_type": "LORA", "r": 2})  # of one that was merged before it
    assert inspect_adapter(adapter, inspect_checkpoint(made)).products


def test_an_untrained_adapter_changes_nothing_unless_it_brings_whole_tensors(
    base: Checkpoint, save: Callable[..., Path]
) -> None:
    rows, _ = weights_shape(base)
    norm = torch.ones(rows)[: base.config["hidden_size"]]
    parts = {LORA_B: torch.zeros(rows, RANK), "base_model.model.model.norm.weight": norm}
    adapter = save({"modules_to_save": ["norm"], "base_model_name_or_path": "tiny"}, parts)
    assert inspect_adapter(adapter, base).notes == ()


def test_an_output_layer_for_a_model_that_has_none_of_its_own_is_refused(
    base: Checkpoint, save: Callable[..., Path]
) -> None:
    tied = with_tensors(base, {name: one for name, one in base.weights.tensors.items() if name != "output.weight"})
    adapter = save({"modules_to_save": ["output"]}, {"base_model.model.output.weight": torch.ones(4, 4)})
    with pytest.raises(CheckpointError, match=r"the model has no output\.weight") as caught:
        inspect_adapter(adapter, tied)
    assert "tie_word_embeddings = false" in (caught.value.remedy or "")


TIED = "changes the embeddings, which are the base's output layer too"


@pytest.mark.parametrize(
    ("settings", "brought", "told"),
    [
        ({"modules_to_save": ["embed_tokens"]}, {"embed_tokens": 1}, TIED),
        ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, {"embed_tokens": 1}, None),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, {"embed_tokens": 1, "lm_head": 1}, None),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, {"embed_tokens": 1, "lm_head": 2}, "has no lm_head.weight"),
        ({"modules_to_save": ["lm_head"]}, {}, "lacks lm_head, one of modules_to_save"),
    ],
)
def test_embeddings_that_are_the_output_layer_too_are_changed_as_both(
    base: Checkpoint, save: Callable[..., Path], settings: dict[str, Any], brought: dict[str, int], told: str | None
) -> None:
    own = {name: one for name, one in base.weights.tensors.items() if name not in ("output.weight", EMBEDDINGS)}
    tied = with_tensors(base, own | {"model.embed_tokens.weight": base.weights.tensors[EMBEDDINGS]})
    names = {"embed_tokens": "base_model.model.model.embed_tokens.weight", "lm_head": "base_model.model.lm_head.weight"}
    shape = base.weights.tensors[EMBEDDINGS].shape
    adapter = save(settings, {names[module]: torch.full(shape, float(value)) for module, value in brought.items()})
    try:
        found = " ".join(inspect_adapter(adapter, tied).notes)
    except CheckpointError as error:
        found = error.message
    assert told in found if told else TIED not in found and "lm_head" not in found


@pytest.mark.parametrize(("bias", "lacking"), [("none", 0), ("lora_only", 1), ("all", 2)])
def test_biases_that_were_trained_and_not_saved_are_said(
    base: Checkpoint, save: Callable[..., Path], bias: str, lacking: int
) -> None:
    biases = {f"{module}.bias": StoredTensor("BF16", (4,)) for module in (MODULE, MODULE.replace("0", "1"))}
    biased = with_tensors(base, {**base.weights.tensors, **biases})
    said = inspect_adapter(save({"bias": bias, "base_model_name_or_path": "tiny"}), biased).notes
    assert [f"lacks {lacking} biases" in note for note in said] == [True] * bool(lacking)


def test_modules_that_only_the_files_may_hold_are_not_asked_for(base: Checkpoint, save: Callable[..., Path]) -> None:
    """As those of a layer for predicting several tokens, in files of a layout that is not known here."""
    adapter = save({"target_modules": ["wqkv"], "base_model_name_or_path": "tiny"})
    (note,) = inspect_adapter(adapter, replace(base, weights_unchecked="unknown tensor layout")).notes
    assert note.startswith("warning: the adapter lacks the factors of 1 of the 2 modules")


def test_without_a_merge_its_directory_shows_the_same_tokenizer_and_writes_nothing_else(
    base: Checkpoint, save: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save()
    (adapter / "tokenizer.model").write_bytes((base.path / "tokenizer.model").read_bytes())
    write_json(adapter / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    shown = tmp_path / "shown"
    shown.mkdir()

    link_unmerged(base, inspect_adapter(adapter, base), shown)

    assert inspect_checkpoint(shown).weights.tensors == base.weights.tensors
    assert (shown / "tokenizer_config.json").samefile(adapter / "tokenizer_config.json")
    assert {path.name for path in shown.iterdir()} == {path.name for path in merged(base, adapter)[0].iterdir()} - {
        "bundle-cache.json"
    }


def test_a_directory_that_is_no_adapter_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json") as caught:
        inspect_adapter(base.path, base)
    assert (
        caught.value.remedy == "Give a whole model as MODEL_DIR, without --adapter; --adapter none is the model alone."
    )
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA})
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        inspect_adapter(tmp_path, base)


def test_a_base_that_is_not_in_safetensors_is_refused(
    base: Checkpoint, weights: Parts, save: Callable[..., Path], tmp_path: Path
) -> None:
    old = tmp_path / "old-base"
    shutil.copytree(base.path, old, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.save(weights, old / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match=r"PyTorch \.bin files; only safetensors can be merged"):
        inspect_adapter(save(), inspect_checkpoint(old))


def test_an_older_adapter_is_merged_as_one_in_safetensors(
    base: Checkpoint, save: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save()
    _, expected = merged(base, adapter)
    old = tmp_path / "old"
    old.mkdir()
    (adapter / "adapter_config.json").rename(old / "adapter_config.json")
    torch.save(safetensors.load_file(adapter / "adapter_model.safetensors"), old / "adapter_model.bin")

    _, found = merged(base, old)

    assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.save({f"base_model.model.{MODULE}.lora_A.weight": torch.full((RANK, 7), NAN)}, old / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: .* not finite"):
        inspect_adapter(old, base)


def test_a_file_and_a_directory_above_are_told_from_an_adapter(
    base: Checkpoint, save: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save()
    for path, told, remedy in (
        (adapter / "adapter_model.safetensors", "is a file, not a directory", f"{adapter}."),
        (tmp_path, "has no adapter_config.json", f"Give {adapter}."),
        (tmp_path / "adaptor", "does not exist", f"Did you mean {adapter}?"),
    ):
        with pytest.raises(CheckpointError, match=told) as caught:
            inspect_adapter(path, base)
        assert (caught.value.remedy or "").endswith(remedy)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["(", "a{9999999999}", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*LoraConfig.model_fields, "use_dora", "init_lora_weights"]), JSON, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_configuration_holds_is_read_or_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 8} | values)
    try:
        config = read_lora_config(tmp_path)
    except CheckpointError:
        return
    config.targets(MODULE, config.target_modules or ())
    assert 0 < config.scale(MODULE) < INFINITE
