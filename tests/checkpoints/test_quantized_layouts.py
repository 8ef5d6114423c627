"""Quantized checkpoints, as published ones are named and shaped: a whole one passes, one that lacks a part does not.

The settings are those of published config.json files, and so is what is left alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.checkpoints._implied_tensors import implied_tensors
from bundle.checkpoints._quantized import read_quantization
from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._tensors import check_tensors
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_checkpoint, write_json

Stored = dict[str, StoredTensor]

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
QWEN3_MOE = {
    **QWEN2,
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 32,
    "moe_intermediate_size": 64,
    "num_experts": 2,
}
INTERNLM2 = {**QWEN2, "architectures": ["InternLM2ForCausalLM"], "bias": False}

AWQ = {
    **{"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True},
    "modules_to_not_convert": None,
}
GPTQ = {
    **{"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True, "damp_percent": 0.01},
    **{"static_groups": False, "true_sequential": True, "model_file_base_name": "model"},
}
FP8 = {
    **{"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "modules_to_not_convert": ["lm_head"],
}
BITSANDBYTES = {
    **{"quant_method": "bitsandbytes", "_load_in_4bit": True, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    **{"bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": None},
}


def compressed(form: Any, bits: int, kind: str, *, symmetric: bool = True, group_size: Any = 64) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": "group", "group_size": group_size}
    weights |= {"actorder": None, "block_structure": None, "dynamic": False, "observer": "minmax"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    settings = {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}
    return {**settings, "kv_cache_scheme": None, "quantization_status": "compressed"}


def awq(rows: int, columns: int) -> Stored:
    return {
        "qweight": StoredTensor("I32", (columns, rows // 8)),
        "qzeros": StoredTensor("I32", (columns // 64, rows // 8)),
        "scales": StoredTensor("F16", (columns // 64, rows)),
    }


def gptq(rows: int, columns: int) -> Stored:
    return {
        "qweight": StoredTensor("I32", (columns // 8, rows)),
        "qzeros": StoredTensor("I32", (columns // 64, rows // 8)),
        "scales": StoredTensor("F16", (columns // 64, rows)),
        "g_idx": StoredTensor("I32", (columns,)),
        "bias": StoredTensor("F16", (rows,)),
    }


def blockwise_fp8(rows: int, columns: int) -> Stored:
    scales = StoredTensor("BF16", (-(-rows // 128), -(-columns // 128)))
    return {"weight": StoredTensor("F8_E4M3", (rows, columns)), "weight_scale_inv": scales}


def static_fp8(rows: int, columns: int) -> Stored:
    one = StoredTensor("F32", ())
    return {"weight": StoredTensor("F8_E4M3", (rows, columns)), "weight_scale": one, "input_scale": one}


def w4a16(rows: int, columns: int) -> Stored:
    return {
        "weight_packed": StoredTensor("I32", (rows, columns // 8)),
        "weight_scale": StoredTensor("BF16", (rows, columns // 64)),
        "weight_shape": StoredTensor("I64", (2,)),
    }


def asymmetric_w4a16(rows: int, columns: int) -> Stored:
    return w4a16(rows, columns) | {"weight_zero_point": StoredTensor("I32", (rows // 8, columns // 64))}


def w8a8(rows: int, columns: int) -> Stored:
    return {"weight": StoredTensor("I8", (rows, columns)), "weight_scale": StoredTensor("BF16", (rows, 1))}


def smooth_quant(rows: int, columns: int) -> Stored:
    return {"weight": StoredTensor("I8", (rows, columns)), "scale": StoredTensor("F32", (rows, 1))}


def nvfp4(rows: int, columns: int) -> Stored:
    return {
        "weight_packed": StoredTensor("U8", (rows, columns // 2)),
        "weight_scale": StoredTensor("F8_E4M3", (rows, columns // 16)),
        "weight_global_scale": StoredTensor("F32", (1,)),
        "input_global_scale": StoredTensor("F32", (1,)),
    }


def nf4(rows: int, columns: int) -> Stored:
    return {
        "weight": StoredTensor("U8", (rows * columns // 2, 1)),
        "weight.absmax": StoredTensor("U8", (rows * columns // 64,)),
        "weight.quant_map": StoredTensor("F32", (16,)),
        "weight.nested_absmax": StoredTensor("F32", (-(-rows * columns // 64 // 256),)),
        "weight.nested_quant_map": StoredTensor("F32", (256,)),
        "weight.quant_state.bitsandbytes__nf4": StoredTensor("U8", (81,)),
    }


def nf4_in_bfloat16(rows: int, columns: int) -> Stored:
    stored = {name: tensor for name, tensor in nf4(rows, columns).items() if "nested" not in name}
    absmax = StoredTensor("F32", (rows * columns // 64,))
    return stored | {"weight": StoredTensor("BF16", (rows * columns // 4, 1)), "weight.absmax": absmax}


def llm_int8(rows: int, columns: int) -> Stored:
    return {
        "weight": StoredTensor("I8", (rows, columns)),
        "SCB": StoredTensor("F32", (rows,)),
        "weight_format": StoredTensor("U8", ()),
    }


Maker = Callable[[int, int], Stored]

# Settings, what stands in place of a weight, and the parts of that without which it cannot be read.
LAYOUTS: dict[str, tuple[dict[str, Any], Maker, tuple[str, ...]]] = {
    "awq": (AWQ, awq, ("qweight", "qzeros", "scales")),
    "gptq": (GPTQ, gptq, ("qweight", "scales")),
    "gptq-act-order": (GPTQ | {"desc_act": True}, gptq, ("qweight", "scales", "g_idx")),
    "gptq-asymmetric": (GPTQ | {"sym": False, "checkpoint_format": "gptq_v2"}, gptq, ("qweight", "scales", "qzeros")),
    "fp8-blockwise": (FP8, blockwise_fp8, ("weight", "weight_scale_inv")),
    "fp8-static": (
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
        static_fp8,
        ("weight", "weight_scale", "input_scale"),
    ),
    "w4a16": (compressed("pack-quantized", 4, "int"), w4a16, ("weight_packed", "weight_scale")),
    "w4a16-asymmetric": (
        compressed("pack-quantized", 4, "int", symmetric=False),
        asymmetric_w4a16,
        ("weight_packed", "weight_scale", "weight_zero_point"),
    ),
    "w8a8-int8": (compressed("int-quantized", 8, "int"), w8a8, ("weight", "weight_scale")),
    "w8a8-lmdeploy": (
        {"quant_method": "smooth_quant", "quant_dtype": "int8"},
        smooth_quant,
        ("weight", "scale"),
    ),
    "w8a8-fp8": (compressed("float-quantized", 8, "float"), static_fp8, ("weight", "weight_scale")),
    "nvfp4": (
        compressed("nvfp4-pack-quantized", 4, "float"),
        nvfp4,
        ("weight_packed", "weight_scale", "weight_global_scale"),
    ),
    "nf4": (BITSANDBYTES, nf4, tuple(nf4(64, 64))),
    "nf4-in-bfloat16": (
        BITSANDBYTES | {"bnb_4bit_use_double_quant": False, "bnb_4bit_quant_storage": "bfloat16"},
        nf4_in_bfloat16,
        tuple(nf4_in_bfloat16(64, 64)),
    ),
    "llm-int8": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "_load_in_8bit": True, "llm_int8_threshold": 6.0},
        llm_int8,
        ("weight", "SCB"),
    ),
}
MODELS = {"qwen2": QWEN2, "qwen3-moe": QWEN3_MOE, "internlm2": INTERNLM2}
LEFT_ALONE = ("embed", "norm", "lm_head", "output", "mlp.gate")


def quantized(model: dict[str, Any], layout: str) -> tuple[dict[str, Any], Stored]:
    """A model whose projections are quantized."""
    settings, make, _ = LAYOUTS[layout]
    config = {**model, "quantization_config": settings}
    shapes = implied_tensors(config)
    assert isinstance(shapes, dict)
    stored: Stored = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) == 2 and not any(part in f"{module}." for part in LEFT_ALONE[:4]):
            if module.endswith(LEFT_ALONE[4]):
                stored[name] = StoredTensor("BF16", shape)
            else:
                stored |= {f"{module}.{part}": tensor for part, tensor in make(*shape).items()}
        else:
            stored.setdefault(name, StoredTensor("BF16", shape))
    return config, stored


def first_quantized(stored: Stored, part: str) -> str:
    return next(name for name in stored if name.endswith(f"_proj.{part}"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_a_whole_one_is_not_refused(model: str, layout: str) -> None:
    config, stored = quantized(MODELS[model], layout)
    assert read_quantization(Path("model"), (), config) == config["quantization_config"]
    assert check_tensors(Path("model"), config, stored) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_embeddings_are_stored_once_and_those_left_alone_as_they_are(layout: str) -> None:
    config, stored = quantized({**QWEN2, "tie_word_embeddings": True}, layout)
    del stored["lm_head.weight"]
    name = "model.layers.1.mlp.down_proj"
    stored = {key: tensor for key, tensor in stored.items() if not key.startswith(f"{name}.")}
    stored[f"{name}.weight"] = StoredTensor("BF16", (128, 256))
    excepted = {**config["quantization_config"], "modules_to_not_convert": [name]}

    assert check_tensors(Path("model"), {**config, "quantization_config": excepted}, stored) is None


@pytest.mark.parametrize("layout", ["awq", "gptq", "fp8-blockwise", "w8a8-lmdeploy", "nf4", "llm-int8"])
def test_a_weight_in_full_precision_that_no_setting_excepts_is_refused(layout: str) -> None:
    config, stored = quantized(QWEN2, layout)
    name = "model.layers.1.mlp.down_proj"
    stored = {key: tensor for key, tensor in stored.items() if not key.startswith(f"{name}.")}
    stored[f"{name}.weight"] = StoredTensor("BF16", (128, 256))

    with pytest.raises(CheckpointError, match=rf"full precision .* does not except \(1\): {name}\.weight"):
        check_tensors(Path("model"), config, stored)


@pytest.mark.parametrize(
    "settings",
    [
        *((AWQ, GPTQ, FP8, BITSANDBYTES, compressed("pack-quantized", 4, "int"))),
        *({"quant_method": method} for method in ("torchao", "hqq", "quanto", "mxfp4", "smooth_quant", "foo")),
        {"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}},
    ],
    ids=lambda one: str(one["quant_method"]),
)
@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "BaichuanForCausalLM"])
def test_weights_in_full_precision_that_are_said_to_be_quantized_are_refused(
    settings: dict[str, Any], architecture: str
) -> None:
    shapes = implied_tensors(QWEN2)
    assert isinstance(shapes, dict)
    config = {**QWEN2, "architectures": [architecture], "quantization_config": settings}
    stored = {name: StoredTensor("BF16", shape) for name, shape in shapes.items()}

    with pytest.raises(
        CheckpointError, match=rf"are quantized by {settings['quant_method']}, but all \d+ tens"
    ) as told:
        check_tensors(Path("model"), config, stored)
    assert "remove quantization_config from config.json" in str(told.value.remedy)


def test_weights_saved_before_they_were_compressed_are_told_how_to_be() -> None:
    shapes = implied_tensors(QWEN2)
    assert isinstance(shapes, dict)
    settings = compressed("dense", 8, "int") | {"quantization_status": "frozen"}
    stored = {name: StoredTensor("BF16", shape) for name, shape in shapes.items()}
    stored |= {name + "_scale": StoredTensor("BF16", (1,)) for name in shapes if name.endswith("_proj.weight")}

    with pytest.raises(CheckpointError, match="are quantized by compressed-tensors, but all") as caught:
        check_tensors(Path("model"), QWEN2 | {"quantization_config": settings}, stored)
    assert "or save them with save_compressed=True" in str(caught.value.remedy)


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "BaichuanForCausalLM"])
@pytest.mark.parametrize(
    ("layout", "file", "settings", "told"),
    [
        (
            "gptq",
            "quantize_config.json",  # of AutoGPTQ
            {"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": False, "model_name_or_path": None},
            '"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": false}',
        ),
        (
            "awq",
            "quant_config.json",  # of AutoAWQ
            {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
            '"quantization_config": {"quant_method": "awq", "zero_point": true, "group_size": 128, "bits": 4, '
            '"version": "gemm"}',
        ),
        ("w4a16", "config.json", {"compression_config": {}}, "Rename compression_config in config.json"),
    ],
    ids=["AutoGPTQ", "AutoAWQ", "compression_config"],
)
def test_settings_where_older_tools_left_them_are_told_to_be_moved(
    tmp_path: Path, layout: str, file: str, settings: dict[str, Any], told: str, architecture: str
) -> None:
    config, stored = quantized(QWEN2, layout)
    del config["quantization_config"]
    config |= {"architectures": [architecture]} | (settings if file == "config.json" else {})
    write_json(tmp_path / file, settings)

    with pytest.raises(CheckpointError, match="without a quantization_config") as caught:
        check_tensors(tmp_path, config, stored)
    assert told in str(caught.value.remedy)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitnet", "quantization_mode": "online", "linear_class": "autobitlinear"},
        {"quant_method": "modelopt", "quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}},
        {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}},
    ],
    ids=lambda one: str(one["quant_method"]),
)
def test_a_quantized_cache_and_weights_that_an_engine_quantizes_are_no_contradiction(settings: dict[str, Any]) -> None:
    shapes = implied_tensors(QWEN2)
    assert isinstance(shapes, dict)
    stored = {name: StoredTensor("BF16", shape) for name, shape in shapes.items()}

    check_tensors(Path("model"), {**QWEN2, "quantization_config": settings}, stored)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (FP8 | {"weight_block_size": "x"}, "weight_block_size must be two positive integers, not 'x'"),
        (FP8 | {"weight_block_size": [128]}, "weight_block_size must be two positive integers"),
        (FP8 | {"activation_scheme": 1}, 'activation_scheme must be "dynamic" or "static"'),
        (FP8 | {"modules_to_not_convert": "lm_head"}, "modules_to_not_convert must be a list of names"),
        (AWQ | {"bits": "four"}, "bits must be a positive integer, not 'four'"),
        (AWQ | {"group_size": 0}, "group_size must be a positive integer or -1, not 0"),
        (GPTQ | {"desc_act": "no"}, "desc_act must be true or false"),
        (BITSANDBYTES | {"load_in_4bit": 1}, "load_in_4bit must be true or false"),
        (compressed("dense", 8, "int") | {"config_groups": [1]}, "config_groups must be an object"),
        (compressed("dense", 8, "int", group_size={}), "group_size must be a positive integer or -1, not {}"),
        (compressed("dense", 8, "int", group_size="64"), "group_size must be a positive integer or -1, not '64'"),
    ],
)
def test_a_setting_of_another_type_is_named(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    directory = write_checkpoint(tmp_path, config={**QWEN2, "quantization_config": settings})
    with pytest.raises(CheckpointError) as caught:
        inspect_checkpoint(directory)
    assert f"config.json: in quantization_config, {told}" in caught.value.message


def test_a_format_that_is_no_name_is_unknown() -> None:
    config, stored = quantized(QWEN2, "w4a16")
    config = config | {"quantization_config": compressed([[]], 4, "int")}
    assert "in the format [[]]" in str(check_tensors(Path("model"), config, stored))


@pytest.mark.parametrize(("layout", "part"), [(name, part) for name, one in LAYOUTS.items() for part in one[2]])
def test_one_that_lacks_a_part_is_refused_and_the_part_named(layout: str, part: str) -> None:
    config, stored = quantized(QWEN2, layout)
    lacking = first_quantized(stored, part)
    del stored[lacking]

    with pytest.raises(CheckpointError) as caught:
        check_tensors(Path("model"), config, stored)
    # A packed weight is called by the name that it would have.
    whole = lacking.rpartition(".")[0] + ".weight" if part in ("qweight", "weight_packed") else lacking
    assert f"missing tensors (1 of 27): {whole}" in caught.value.message


@pytest.mark.parametrize("layout", ["awq", "gptq", "w4a16", "fp8-blockwise", "llm-int8"])
def test_one_of_another_size_is_refused(layout: str) -> None:
    config, stored = quantized(QWEN2, layout)

    with pytest.raises(CheckpointError, match=r"tensors with another shape \(6\): model\.layers\.0\.mlp\.gate_proj"):
        check_tensors(Path("model"), {**config, "intermediate_size": 512}, stored)


@pytest.mark.parametrize(
    ("layout", "setting", "told"),
    [
        ("awq", {"group_size": 32}, "q_proj.scales has the shape [2, 128], config.json gives [4, 128]"),
        ("gptq", {"group_size": -1}, "q_proj.scales has the shape [2, 128], config.json gives [1, 128]"),
        (
            "fp8-blockwise",
            {"weight_block_size": [128, 64]},
            "q_proj.weight_scale_inv has the shape [1, 1], config.json gives [1, 2]",
        ),
        (
            "w4a16",
            {"config_groups": {"group_0": {"weights": {"num_bits": 4, "strategy": "group", "group_size": 128}}}},
            "q_proj.weight_scale has the shape [128, 2], config.json gives [128, 1]",
        ),
    ],
)
def test_groups_of_another_size_are_refused(layout: str, setting: dict[str, Any], told: str) -> None:
    config, stored = quantized(QWEN2, layout)
    settings = config["quantization_config"] | setting

    with pytest.raises(CheckpointError) as caught:
        check_tensors(Path("model"), {**config, "quantization_config": settings}, stored)
    assert told in caught.value.message


def test_awq_weights_have_no_order_of_groups_to_lack() -> None:
    config, stored = quantized(QWEN2, "awq")
    config["quantization_config"] = {**AWQ, "desc_act": True}  # as GPTQModel writes it

    assert check_tensors(Path("model"), config, stored) is None


def test_scales_of_a_quantized_cache_are_no_strangers() -> None:
    config, stored = quantized(QWEN2, "fp8-static")
    attention = "model.layers.0.self_attn"
    for name in ("k_scale", "v_scale", "kv_scale", "k_proj.k_scale", "k_proj.output_scale"):
        stored[f"{attention}.{name}"] = StoredTensor("F32", ())

    assert check_tensors(Path("model"), config, stored) is None


def test_single_modules_may_have_other_numbers_of_bits() -> None:
    rules = {"-:.*gate.*": {}, r"+:.*\.down_proj.*": {"bits": 8, "group_size": 32}}
    config, stored = quantized(QWEN2, "gptq")
    config["quantization_config"] = {**GPTQ, "dynamic": rules}
    for name in [name for name in stored if name.endswith("down_proj.qweight")]:
        stored[name] = StoredTensor("I32", (256 // 4, 128))
        stored[name.replace("qweight", "scales")] = StoredTensor("F16", (256 // 32, 128))

    assert check_tensors(Path("model"), config, stored) is None


def test_settings_of_bitsandbytes_need_not_name_it(tmp_path: Path) -> None:
    config = {"architectures": ["UnknownForCausalLM"], "quantization_config": {"load_in_4bit": True}}
    assert inspect_checkpoint(write_checkpoint(tmp_path, config=config)).quantization == "bitsandbytes"


def test_weights_may_be_packed_into_bytes() -> None:
    config, stored = quantized(QWEN2, "w4a16")
    for name in [name for name in stored if name.endswith(".weight_packed")]:
        rows, columns = stored[name].shape
        stored[name] = StoredTensor("U8", (rows, columns * 4))

    assert check_tensors(Path("model"), config, stored) is None


def test_gemma_ties_its_embeddings_where_its_configuration_does_not_say() -> None:
    gemma = {**QWEN2, "architectures": ["GemmaForCausalLM"], "head_dim": 32}
    config, stored = quantized(gemma, "awq")
    del stored["lm_head.weight"]

    assert check_tensors(Path("model"), config, stored) is None
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        check_tensors(Path("model"), {**config, "tie_word_embeddings": False}, stored)


@pytest.mark.parametrize(
    "settings",
    [
        GPTQ | {"checkpoint_format": "marlin"},
        GPTQ | {"is_marlin_format": True},
        compressed("marlin-24", 4, "int"),
        compressed("dense", 8, "float") | {"sparsity_config": {"format": "sparse-24-bitmask"}},
    ],
    ids=json.dumps,
)
def test_formats_of_their_own_are_not_judged(settings: dict[str, Any]) -> None:
    unchecked = check_tensors(Path("model"), {**QWEN2, "quantization_config": settings}, {})

    assert unchecked is not None
    assert "unknown tensor layout of" in unchecked
    assert "in the format" in unchecked
