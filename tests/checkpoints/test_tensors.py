"""Names and shapes of the weights are held against config.json, as transformers itself would write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints._implied_tensors import Shapes, implied_tensors, parameter_count
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._tensors import check_tensors
from bundle.checkpoints._weights import inspect_weights
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import INDEX, describe, safetensors_bytes, write_checkpoint, write_json

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA = {"architectures": ["LlamaForCausalLM"], **SMALL}
MOE = {"moe_intermediate_size": 24, "num_experts": 2, "num_experts_per_tok": 1}

# Published configurations, without what does not bear on tensors, and how many parameters the models are said to have.
PUBLISHED: dict[str, tuple[dict[str, Any], float]] = {
    "Llama-3.1-8B": (
        {
            "model_type": "llama",
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        8.03e9,
    ),
    "Llama-3.2-1B": (
        {
            "model_type": "llama",
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
        1.24e9,
    ),
    "Qwen2.5-7B": (
        {
            "model_type": "qwen2",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        7.62e9,
    ),
    "Qwen3-0.6B": (
        {
            "model_type": "qwen3",
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
        0.6e9,
    ),
    "Mistral-7B": (
        {
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        7.24e9,
    ),
    "GLM-4-9B": (
        {
            "model_type": "glm4",
            "vocab_size": 151552,
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "attention_bias": True,
        },
        9.4e9,
    ),
    "Gemma-2-2B": (
        {
            "model_type": "gemma2",
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "tie_word_embeddings": True,
        },
        2.61e9,
    ),
    "Phi-3-mini": (
        {
            "model_type": "phi3",
            "vocab_size": 32064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
        },
        3.82e9,
    ),
}


def implied(config: Mapping[str, Any]) -> Shapes:
    shapes = implied_tensors(config)
    assert isinstance(shapes, dict)
    return shapes


def stored_as(shapes: Shapes, dtype: str = "BF16") -> dict[str, StoredTensor]:
    return {name: StoredTensor(dtype, shape) for name, shape in shapes.items()}


def refusal(config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        check_tensors(Path("model"), config, stored)
    assert caught.value.remedy
    return caught.value


# What transformers makes of the same configuration


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_the_tensors_of_transformers_own_model(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    settings, parameters = PUBLISHED[name]
    config = transformers.CONFIG_MAPPING[settings["model_type"]](**settings, pad_token_id=None)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)

    written = {"architectures": [type(model).__name__], **settings}

    assert implied(written) == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    tied = settings["vocab_size"] * settings["hidden_size"] if settings.get("tie_word_embeddings") else 0
    assert abs((parameter_count(implied(written)) - tied) / parameters - 1) < 0.01


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("gemma", {"head_dim": 16}),
        ("gemma", {"head_dim": 16, "tie_word_embeddings": False, "attention_bias": True}),
        ("gemma2", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
        ("glm", {"head_dim": 16}),
        ("glm", {"head_dim": 16, "attention_bias": False}),
        ("glm4", {"head_dim": 16}),
        ("glm4", {"attention_bias": False}),
        ("llama", {}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"head_dim": 16}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": None}),
        ("llama", {"tie_word_embeddings": True}),
        ("mistral", {}),
        ("mistral", {"head_dim": 16}),
        ("mixtral", {"num_local_experts": 2}),
        ("phi3", {"pad_token_id": 0}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 40}),
        ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 40, "qkv_bias": False, "decoder_sparse_step": 2}),
        ("qwen3", {}),
        ("qwen3", {"head_dim": 16, "attention_bias": True}),
        ("qwen3_moe", {**MOE, "head_dim": 16}),
        ("qwen3_moe", {**MOE, "head_dim": 16, "mlp_only_layers": [1]}),
    ],
)
def test_what_transformers_saves_is_whole_and_not_with_a_tensor_less(
    tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[model_type](**{**SMALL, "pad_token_id": None, **changes})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_bytes())
    stored = inspect_weights(tmp_path).tensors
    assert stored is not None

    assert check_tensors(tmp_path, written, stored) is None
    for name in stored:
        lacking = {key: tensor for key, tensor in stored.items() if key != name}
        assert "missing tensors (1 of" in refusal(written, lacking).message


# What is said of weights that are not whole


def test_a_missing_tensor_is_named() -> None:
    stored = stored_as(implied(LLAMA))
    del stored["model.layers.1.self_attn.q_proj.weight"]

    error = refusal(LLAMA, stored)

    assert "missing tensors (1 of 30): model.layers.1.self_attn.q_proj.weight" in error.message


def test_a_tensor_of_another_model_is_named() -> None:
    stored = stored_as(implied(LLAMA)) | {"score.weight": StoredTensor("F32", (1, 32))}

    assert "unexpected tensors (1): score.weight" in refusal(LLAMA, stored).message


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    stored = stored_as(implied(LLAMA | {"vocab_size": 65}))

    error = refusal(LLAMA, stored)

    assert "tensors with another shape (2)" in error.message
    assert "lm_head.weight has the shape [65, 32], config.json gives [64, 32]" in error.message


@pytest.mark.parametrize("layers", [2, 4])
def test_another_number_of_layers_is_said_first(layers: int) -> None:
    error = refusal(LLAMA, stored_as(implied(LLAMA | {"num_hidden_layers": layers})))

    assert f"they have {layers} layers, config.json gives 3" in error.message
    assert any("tensors" in detail for detail in error.details)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "UnknownForCausalLM"])
@pytest.mark.parametrize(
    ("was", "now", "told", "remedy"),
    [
        ("", "module.", "of what the model was wrapped in", "unwrap_model"),
        ("model.norm", "v_head.summary", "of what the model was wrapped in", "pretrained_model"),
        ("", "_orig_mod.", "of what the model was wrapped in", "unwrap_model"),
        ("layers.0.", "layers.0._checkpoint_wrapped_module.", "of what the model was wrapped in", "unwrap_model"),
        ("", "base_model.model.", "of what the model was wrapped in", "merge_and_unload"),
        ("q_proj.weight", "q_proj.lora_A.default.weight", "a LoRA adapter that is not merged", "merge_and_unload"),
    ],
)
def test_names_of_what_a_model_was_trained_in_are_refused_whatever_the_model_is(
    architecture: str, was: str, now: str, told: str, remedy: str
) -> None:
    stored = {name.replace(was, now, 1): tensor for name, tensor in stored_as(implied(LLAMA)).items()}

    error = refusal(LLAMA | {"architectures": [architecture]}, stored)

    assert told in error.message
    assert remedy in str(error.remedy)


def test_what_all_names_have_in_front_or_lack_there_is_said_first() -> None:
    stored = stored_as(implied(LLAMA))

    error = refusal(LLAMA, {f"language_model.{name}": tensor for name, tensor in stored.items()})
    assert "their names begin with 'language_model.', which those of this architecture do not" in error.message
    error = refusal(LLAMA, {name.removeprefix("model."): tensor for name, tensor in stored.items()})
    assert "their names lack the 'model.' in front that those of this architecture have" in error.message


def test_an_output_projection_may_be_missing_only_where_it_is_tied() -> None:
    stored = stored_as(implied(LLAMA))
    assert check_tensors(Path("model"), LLAMA | {"tie_word_embeddings": True}, stored) is None
    del stored["lm_head.weight"]

    assert check_tensors(Path("model"), LLAMA | {"tie_word_embeddings": True}, stored) is None
    assert "lm_head.weight" in refusal(LLAMA, stored).message


def test_frequencies_of_rope_in_old_checkpoints_are_no_fault() -> None:
    stored = stored_as(implied(LLAMA)) | {"model.layers.0.self_attn.rotary_emb.inv_freq": StoredTensor("F32", (4,))}

    assert check_tensors(Path("model"), LLAMA, stored) is None


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8"])
def test_quantized_weights_without_a_quantization_config_are_refused(dtype: str) -> None:
    stored = stored_as(implied(LLAMA)) | {"model.layers.0.mlp.up_proj.weight": StoredTensor(dtype, (48, 32))}

    error = refusal(LLAMA, stored)
    said = [error.message, *error.details]
    assert any("without a quantization_config (1): model.layers.0.mlp.up_proj.weight" in line for line in said)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads"])
def test_numbers_that_no_shape_shows_must_be_given(key: str) -> None:
    """Transformers takes 32 of each, and layers that are missing are not noticed by every engine."""
    config = {name: value for name, value in LLAMA.items() if name != key}
    assert f"it does not give {key}" in refusal(config, stored_as(implied(LLAMA))).message


# Where it cannot be told


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"architectures": ["BaichuanForCausalLM"]}, "unknown tensor layout of the architecture BaichuanForCausalLM"),
        ({"architectures": ["LlamaForCausalLM"], "vocab_size": 7}, "config.json does not give hidden_size"),
        (
            LLAMA | {"quantization_config": {"quant_method": "hqq"}},
            "unknown tensor layout of the quantization method hqq",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_not_refused(config: dict[str, Any], reason: str) -> None:
    unchecked = check_tensors(Path("model"), config, {"a": StoredTensor("U8", (1,))})

    assert unchecked is not None
    assert reason in unchecked


def test_an_inspection_compares_and_a_checkpoint_tells_why_not(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    assert inspect_checkpoint(directory).weights_unchecked is not None
    write_json(directory / "config.json", LLAMA)
    with pytest.raises(CheckpointError, match=r"do not match config\.json"):
        inspect_checkpoint(directory)

    header, size = describe({name: ("BF16", shape) for name, shape in implied(LLAMA).items()})
    (directory / "model.safetensors").write_bytes(safetensors_bytes(header, bytes(size)))

    assert inspect_checkpoint(directory).weights_unchecked is None


def test_the_same_tensor_in_two_files_is_an_error(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model")
    files = ["model-1.safetensors", "model-2.safetensors"]
    for file in files:
        (directory / file).write_bytes((directory / "model.safetensors").read_bytes())
    (directory / "model.safetensors").unlink()
    write_json(directory / INDEX, {"weight_map": dict(zip(["embed", "norm"], files, strict=True))})

    with pytest.raises(CheckpointError, match="holds 2 tensors that another weight file holds too: embed, norm"):
        inspect_weights(directory)
