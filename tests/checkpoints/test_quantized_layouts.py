"""Quantized checkpoints, as published ones are named and shaped: a whole one passes, one that lacks a part does not.

The settings are those of published config.json files, and so is what is left alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints._tensors import check_tensors, implied_tensors
from bundle.checkpoints._weights import StoredTensor
from bundle.errors import CheckpointError

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


def compressed(form: str, bits: int, kind: str, *, symmetric: bool = True) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": "group", "group_size": 64}
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
    assert check_tensors(Path("model"), config, stored) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_embeddings_are_stored_once_and_those_left_alone_as_they_are(layout: str) -> None:
    config, stored = quantized({**QWEN2, "tie_word_embeddings": True}, layout)
    del stored["lm_head.weight"]
    name = "model.layers.1.mlp.down_proj"
    stored = {key: tensor for key, tensor in stored.items() if not key.startswith(f"{name}.")}
    stored[f"{name}.weight"] = StoredTensor("BF16", (128, 256))

    assert check_tensors(Path("model"), config, stored) is None


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

    assert check_tensors(Path("model"), config, stored) is None


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
