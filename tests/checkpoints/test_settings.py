"""Values in config.json and generation_config.json that would end in a server's traceback, or in another model."""

from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints import _values, inspect_checkpoint
from bundle.checkpoints._implied_tensors import implied_tensors
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_checkpoint, write_json, write_safetensors
from tests.checkpoints.test_tensors import LLAMA

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def written(directory: Path, config: dict[str, Any], generation: object = None) -> Path:
    """A checkpoint of the architecture, whole, with these values in its files."""
    config = {**LLAMA, **config}
    write_checkpoint(directory, config=config)
    shapes = implied_tensors(config)
    assert isinstance(shapes, dict)
    write_safetensors(directory / "model.safetensors", {name: ("BF16", shape) for name, shape in shapes.items()})
    if generation is not None:
        write_json(directory / "generation_config.json", generation)
    return directory


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hidden_act": "nonsense"}, "hidden_act must be an activation's name, not 'nonsense'"),
        ({"hidden_act": ["silu"]}, "hidden_act must be an activation's name"),
        ({"torch_dtype": "auto"}, "torch_dtype must be the name of a dtype, not 'auto'"),
        ({"dtype": 16}, "dtype must be the name of a dtype"),
        ({"layer_types": ["full_attention"] * 9}, "layer_types has 9 entries, num_hidden_layers is "),
        (
            {"layer_types": ["sliding_attention"] * 3, "use_sliding_window": False},
            "use_sliding_window is false, but layer_types has sliding_attention",
        ),
        (
            {"max_position_embeddings": 32768},
            "it gives no rope_theta, and engines would take Llama 2's 10000 for 32768 positions",
        ),
        ({"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default"}}, "it gives no rope_theta"),
        ({"max_position_embeddings": 0}, "max_position_embeddings must be a positive integer, not 0"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be a positive number, not '1e-6'"),
        ({"rope_theta": 10**400}, "rope_theta must be a positive number"),
        ({"sliding_window": -1}, "sliding_window must be a positive integer"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, not 'no'"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling of the type linear lacks factor"),
        ({"rope_scaling": {"type": "magic", "factor": 2}}, "rope_scaling has the rope_type 'magic'; known are default"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling has the rope_type None"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": -4}},
            "in rope_parameters of the type yarn, factor must be",
        ),
        ({"rope_scaling": {**LLAMA3, "rope_type": "llama3", "low_freq_factor": None}}, "lacks low_freq_factor"),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_theta": 1e6},
            "rope_parameters and the older keys beside it differ in rope_theta: None and 1000000.0",
        ),
        (
            {"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "yarn", "factor": 4.0}},
            "rope_parameters and the older keys beside it differ in rope_type: 'default' and 'yarn'",
        ),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}, "rope_theta": 1e6},
            "rope_theta is 1000000.0, and 100.0 within rope_scaling",
        ),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 1e6}}, "rope_theta is None, and 1000000.0 within"),
        (
            {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.0}},
            "rope_scaling has the rope_type linear and the type 'dynamic'",
        ),
        ({"partial_rotary_factor": 0.5}, "LlamaForCausalLM has no partial_rotary_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "LlamaForCausalLM has no partial_rotary_factor"),
        ({"is_causal": False}, "is_causal must be true, not False"),
        ({"model_type": "qwen3"}, "model_type is 'qwen3', but that of LlamaForCausalLM is 'llama'"),
        ({"eos_token_id": 64}, "eos_token_id must be a token id below the vocab_size of 64, or a list of them, not 64"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
        ({"pad_token_id": [2, 3]}, "pad_token_id must be a token id, not [2, 3]"),
    ],
    ids=str,
)
def test_a_value_that_no_engine_can_work_with_is_named(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        inspect_checkpoint(written(tmp_path, config))
    assert f"{tmp_path}/config.json: " in caught.value.message
    assert told in caught.value.message


@pytest.mark.parametrize("end", [999, [2, 999], "x", [None], 2.0, True])
def test_what_ends_a_reply_must_be_a_token_of_the_model(tmp_path: Path, end: object) -> None:
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id must be a token id below"):
        inspect_checkpoint(written(tmp_path, {}, {"eos_token_id": end}))


@pytest.mark.parametrize(
    ("config", "generation"),
    [
        ({"hidden_act": "silu", "rope_scaling": None, "sliding_window": None, "eos_token_id": [2, 3]}, None),
        ({"use_sliding_window": False, "sliding_window": 0}, None),  # of a Qwen2-MoE, by transformers 5
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "torch_dtype": "bfloat16"}, {"eos_token_id": 2}),
        ({"rope_scaling": {**LLAMA3, "rope_type": "llama3"}, "rope_theta": 500000.0}, {}),
        ({"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.5]}}, {"eos_token_id": -1}),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "dtype": "float32"}, None),
        ({"max_position_embeddings": 4096}, None),
        ({"layer_types": ["sliding_attention"] * 3, "sliding_window": 64}, None),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 8.0}}, None),
        ({"max_position_embeddings": 8192, "rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, None),
        (
            {
                "rope_parameters": {"rope_theta": 1e6, "type": "linear", "rope_type": "linear", "factor": 2.0},
                "rope_theta": 1000000,
                "rope_scaling": {"type": "linear", "factor": 2},
            },
            None,
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}},
            None,
        ),
        ({"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}}, None),
        ({"partial_rotary_factor": 1.0, "is_causal": True, "model_type": "llama"}, None),
        ({"model_type": "own", "auto_map": {}}, None),
        ({}, {"repetition_penalty": 5.0, "num_beams": 3, "max_length": 20, "suppress_tokens": [1, 2]}),
    ],
    ids=str,
)
def test_values_of_published_models_pass(tmp_path: Path, config: dict[str, Any], generation: object) -> None:
    assert inspect_checkpoint(written(tmp_path, config, generation)).weights_unchecked is None


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Starcoder2ForCausalLM", "InternLM2ForCausalLM"])
def test_an_output_projection_that_is_said_to_be_the_embeddings_must_be(tmp_path: Path, architecture: str) -> None:
    config = {**LLAMA, "architectures": [architecture]}
    directory = written(tmp_path, config if architecture == "InternLM2ForCausalLM" else {})
    write_json(directory / "config.json", {**config, "tie_word_embeddings": True})
    inspect_checkpoint(directory)

    weights = directory / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-64 * 32 * 2 :] = b"\x01" * (64 * 32 * 2)  # the output projection is the last one
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(lm_head|output)\.weight differs from model\..*embed.*\.weight"):
        inspect_checkpoint(directory)

    write_json(directory / "config.json", {**config, "tie_word_embeddings": False})
    inspect_checkpoint(directory)


def test_tokens_that_were_added_to_one_of_both_show_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_values, "_LONG_SAMPLE_BYTES", 64)  # as 4 MiB of a real one's
    directory = written(tmp_path, {})
    write_json(directory / "config.json", {**LLAMA, "tie_word_embeddings": True})
    weights = directory / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-8:] = b"\x01" * 8
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        inspect_checkpoint(directory)
