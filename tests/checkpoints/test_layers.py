"""Layers that are missing or incomplete are found in models of any architecture, and kinds of layers are no fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.checkpoints._safetensors import StoredTensor
from bundle.checkpoints._tensors import check_tensors
from bundle.errors import CheckpointError

WIDTH, VOCABULARY, EXPERTS = 64, 512, 4
Stored = dict[str, StoredTensor]


@dataclass(frozen=True)
class Layout:
    """A published model's tensors, with other sizes: what each layer holds, and what is beside them."""

    config: Mapping[str, Any]
    layers: Mapping[int, tuple[str, ...]]
    name: str = "model.layers"
    beside: tuple[str, ...] = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    scales: bool = False

    def stored(self) -> Stored:
        found = {}
        for number, parts in self.layers.items():
            for part in parts:
                name = f"{self.name}.{number}.{part}"
                is_wide = "norm" not in part and not part.endswith("bias")
                is_quantized = self.scales and is_wide and "gate.weight" not in part
                found[name] = StoredTensor(
                    "F8_E4M3" if is_quantized else "BF16", (WIDTH, WIDTH) if is_wide else (WIDTH,)
                )
                if is_quantized:
                    found[f"{name}_scale_inv"] = StoredTensor("F32", (1, 1))
        for name in self.beside:
            rows = WIDTH if "visual" in name else VOCABULARY
            found[name] = StoredTensor("BF16", (rows, WIDTH) if "norm" not in name else (WIDTH,))
        return found


def weights(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.weight" for name in names)


def experts(prefix: str, *names: str, count: int = EXPERTS) -> Iterator[str]:
    for number in range(count):
        yield from weights(*(f"{prefix}.experts.{number}.{name}" for name in names))


GATED = ("gate_proj", "up_proj", "down_proj")
NORMS = weights("input_layernorm", "post_attention_layernorm")
ATTENTION = weights("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = weights("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LATENT = weights(
    "self_attn.q_a_proj",
    "self_attn.q_a_layernorm",
    "self_attn.q_b_proj",
    "self_attn.kv_a_proj_with_mqa",
    "self_attn.kv_a_layernorm",
    "self_attn.kv_b_proj",
    "self_attn.o_proj",
)
SPARSE = (
    *experts("mlp", *GATED),
    *weights("mlp.gate", *(f"mlp.shared_experts.{name}" for name in GATED)),
    "mlp.gate.e_score_correction_bias",
)
FURTHER = weights("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head")
STATES = weights("linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba", "linear_attn.conv1d", "linear_attn.out_proj")
MAMBA = weights("mamba.in_proj", "mamba.conv1d", "mamba.x_proj", "mamba.dt_proj", "mamba.out_proj")
JAMBA_MLP = weights(*(f"feed_forward.{name}" for name in GATED))
JAMBA_SPARSE = (*experts("feed_forward", *GATED), "feed_forward.router.weight")


def config(layers: int, **more: Any) -> dict[str, Any]:
    return {"num_hidden_layers": layers, "vocab_size": VOCABULARY, **more}


def each(layers: int, *parts: str) -> dict[int, tuple[str, ...]]:
    return dict.fromkeys(range(layers), parts)


SPARSE_CONFIG = {"n_routed_experts": EXPERTS, "num_nextn_predict_layers": 1}
VISION = tuple(
    f"visual.blocks.{block}.{part}.weight" for block in range(40) for part in ("attn.qkv", "attn.proj", "mlp.fc1")
)
LAYOUTS = {
    "DeepseekV3": Layout(
        config(9, first_k_dense_replace=3, quantization_config={"quant_method": "fp8"}, **SPARSE_CONFIG),
        each(3, *NORMS, *LATENT, *MLP)
        | dict.fromkeys(range(3, 9), (*NORMS, *LATENT, *SPARSE))
        | {9: (*NORMS, *LATENT, *SPARSE, *FURTHER)},
        scales=True,
    ),
    "Glm4Moe": Layout(
        config(6, first_k_dense_replace=1, **SPARSE_CONFIG),
        {0: (*NORMS, *ATTENTION, *MLP)}
        | dict.fromkeys(range(1, 6), (*NORMS, *ATTENTION, *SPARSE))
        | {6: (*NORMS, *ATTENTION, *SPARSE, *FURTHER)},
    ),
    "MiniCPM3": Layout(config(5), each(5, *NORMS, *LATENT, *MLP), beside=("model.embed_tokens.weight",)),
    "Baichuan": Layout(config(4), each(4, *NORMS, *weights("self_attn.W_pack", "self_attn.o_proj"), *MLP)),
    "ChatGLM": Layout(
        {"num_layers": 5, "padded_vocab_size": VOCABULARY},
        each(5, *NORMS, "self_attention.query_key_value.weight", "self_attention.query_key_value.bias"),
        "transformer.encoder.layers",
        ("transformer.embedding.word_embeddings.weight", "transformer.output_layer.weight"),
    ),
    "GPT2LMHead": Layout(
        {"n_layer": 4, "vocab_size": VOCABULARY},
        each(4, *weights("ln_1.norm", "attn.c_attn", "mlp.c_fc"), "attn.bias"),
        "h",
        ("wte.weight", "wpe.weight"),
    ),
    "Jamba": Layout(
        config(8, num_experts=EXPERTS),
        {
            number: (
                *weights("input_layernorm", "pre_ff_layernorm"),
                *(ATTENTION if number == 4 else MAMBA),
                *(JAMBA_SPARSE if number % 2 else JAMBA_MLP),
            )
            for number in range(8)
        },
    ),
    "Qwen3Next": Layout(
        config(8, num_experts=EXPERTS),
        {
            number: (
                *NORMS,
                *(ATTENTION if number % 4 == 3 else STATES),
                *experts("mlp", *GATED),
                *weights("mlp.gate", "mlp.shared_expert_gate", *(f"mlp.shared_expert.{name}" for name in GATED)),
            )
            for number in range(8)
        },
        beside=("model.embed_tokens.weight", "lm_head.weight", "mtp.layers.0.mlp.gate_proj.weight", "mtp.fc.weight"),
    ),
    "NemotronH": Layout(
        config(6, hybrid_override_pattern="M-M*M-"),
        {
            number: ("norm.weight", *{"M": MAMBA, "-": weights("mixer.up_proj"), "*": ATTENTION}[kind])
            for number, kind in enumerate("M-M*M-")
        },
        "backbone.layers",
        ("backbone.embeddings.weight", "lm_head.weight"),
    ),
    "DeciLM": Layout(
        config(6, block_configs=[{"attention": {"no_op": number in (2, 4)}} for number in range(6)]),
        {number: (*NORMS, *MLP, *(() if number in (2, 4) else ATTENTION)) for number in range(6)},
    ),
    "ModernBertDecoder": Layout(
        config(5), each(1, "attn.Wqkv.weight", "mlp_norm.weight") | dict.fromkeys(
            range(1, 5), weights("attn.Wqkv", "mlp_norm", "attn_norm")
        )
    ),
    "InternVLChat": Layout(
        {"llm_config": config(3)},
        each(3, *NORMS, *ATTENTION),
        "language_model.model.layers",
        ("language_model.model.embed_tokens.weight", *VISION),
    ),
}  # fmt: skip


def refusal(layout: Layout, stored: Mapping[str, StoredTensor], **changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_tensors(Path("model"), described(layout) | changes, stored)
    assert caught.value.remedy
    return "\n".join([caught.value.message, *caught.value.details])


def described(layout: Layout) -> dict[str, Any]:
    name = next(name for name, one in LAYOUTS.items() if one is layout)
    return {"architectures": [f"{name}ForCausalLM"], **layout.config}


def layer_count(layout: Layout) -> int:
    text = layout.config.get("llm_config", layout.config)
    return next(int(text[key]) for key in ("num_hidden_layers", "num_layers", "n_layer") if key in text)


whole = pytest.mark.parametrize("layout", [pytest.param(one, id=name) for name, one in LAYOUTS.items()])


@whole
def test_a_whole_model_is_no_fault_whatever_its_layers_are(layout: Layout) -> None:
    unchecked = check_tensors(Path("model"), described(layout), layout.stored())

    assert unchecked is not None
    assert "unknown tensor layout of the architecture" in unchecked
    assert f"only that its {layer_count(layout)} layers are there" in unchecked


@whole
@given(data=st.data())
def test_a_layer_less_is_named_wherever_it_was(layout: Layout, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, layer_count(layout) - 1))
    stored = {name: one for name, one in layout.stored().items() if not name.startswith(f"{layout.name}.{lost}.")}

    assert f"missing layers (1 of {layer_count(layout)}): {layout.name}.{lost}" in refusal(layout, stored)


@pytest.mark.parametrize("name", ["DeepseekV3", "Glm4Moe", "MiniCPM3", "Baichuan", "ChatGLM", "GPT2LMHead"])
@given(data=st.data())
def test_a_tensor_less_in_one_of_several_like_layers_is_named(name: str, data: st.DataObject) -> None:
    layout = LAYOUTS[name]
    last = layer_count(layout) - 1
    # A layer's only tensors of a kind are no part of what its likes have.
    lost = data.draw(st.sampled_from([f"{layout.name}.{last}.{part}" for part in layout.layers[last]]))
    stored = {name: one for name, one in layout.stored().items() if name != lost}

    assert lost.removeprefix(f"{layout.name}.{last}.").split(".experts.")[0] in refusal(layout, stored).replace(
        ", expert ", ".experts."
    )


def test_what_only_the_first_layer_lacks_may_be_by_design_and_is_said() -> None:
    layout = LAYOUTS["ModernBertDecoder"]

    unchecked = check_tensors(Path("model"), described(layout), layout.stored())

    assert unchecked is not None
    assert "model.layers.0 without what 4 others have (1): attn_norm.weight, which may be by design" in unchecked


def test_what_several_layers_lack_may_be_by_design_and_is_said() -> None:
    layout = LAYOUTS["MiniCPM3"]
    stored = {name: one for name, one in layout.stored().items() if not name.endswith(("3.mlp.up_proj.weight",))}
    assert "model.layers.3 without what 4 others have (1): mlp.up_proj.weight" in refusal(layout, stored)
    del stored["model.layers.4.mlp.up_proj.weight"]

    unchecked = check_tensors(Path("model"), described(layout), stored)

    assert unchecked is not None
    assert "model.layers.3 and 1 more without what 3 others have (1): mlp.up_proj.weight" in unchecked


def test_experts_that_are_missing_in_every_layer_are_told_by_their_number() -> None:
    layout = LAYOUTS["Glm4Moe"]
    stored = {name: one for name, one in layout.stored().items() if ".experts.3." not in name}

    assert "missing experts (5): model.layers.1, expert 3, model.layers.2, expert 3" in refusal(layout, stored)
    assert "missing experts (4)" in refusal(layout, {n: one for n, one in stored.items() if ".4.mlp" not in n})


def test_more_layers_than_config_json_gives_are_a_fault_unless_they_predict_further_tokens() -> None:
    layout = LAYOUTS["DeepseekV3"]

    said = refusal(layout, layout.stored(), num_nextn_predict_layers=0)

    assert "they have 10 layers (model.layers), config.json gives 9" in said


def test_half_of_the_layers_may_be_all_where_each_is_used_twice() -> None:
    layout = LAYOUTS["MiniCPM3"]

    unchecked = check_tensors(Path("model"), described(layout) | {"num_hidden_layers": 10}, layout.stored())

    assert unchecked is not None
    assert "its 5 layers may be all, or some of the 10 that config.json gives" in unchecked


def test_a_model_without_its_embeddings_is_a_fault() -> None:
    layout = LAYOUTS["Baichuan"]
    stored = {name: one for name, one in layout.stored().items() if one.shape[0] != VOCABULARY}

    assert f"no embeddings of {VOCABULARY} tokens (vocab_size) among them" in refusal(layout, stored)


def test_an_output_layer_that_is_missing_is_a_fault_where_the_embeddings_are_said_not_to_be_it() -> None:
    layout = LAYOUTS["Baichuan"]
    stored = {name: one for name, one in layout.stored().items() if name != "lm_head.weight"}

    said = refusal(layout, stored, tie_word_embeddings=False)

    assert "tie_word_embeddings is false, and only model.embed_tokens.weight has 512 rows (vocab_size)" in said
    for config, whole in (({"tie_word_embeddings": True}, stored), ({"tie_word_embeddings": False}, layout.stored())):
        assert check_tensors(Path("model"), described(layout) | config, whole)


def test_without_a_number_of_layers_nothing_is_compared() -> None:
    layout = LAYOUTS["Baichuan"]

    unchecked = check_tensors(Path("model"), {"architectures": ["BaichuanForCausalLM"]}, layout.stored())

    assert unchecked is not None
    assert "how many layers it has is unknown" in unchecked


def test_numbers_that_no_model_has_take_no_time() -> None:
    layout = LAYOUTS["MiniCPM3"]
    beyond = StoredTensor("BF16", (WIDTH, WIDTH))

    unchecked = check_tensors(
        Path("model"), described(layout) | {"num_hidden_layers": 10**15, "num_experts": 10**15}, layout.stored()
    )
    assert "how many layers it has is unknown" in str(unchecked)
    stored = layout.stored() | {f"model.layers.0.mlp.experts.{10**15}.up_proj.weight": beyond}
    assert "missing experts (10000): model.layers.0, expert 0" in refusal(layout, stored)


def test_layers_whose_quantization_differs_are_alike() -> None:
    layout = LAYOUTS["MiniCPM3"]
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True, "desc_act": False}
    stored: Stored = {}
    for name, tensor in layout.stored().items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj") or ".layers.1." in name:  # left alone
            stored[name] = tensor
            continue
        parts = {"qweight": "I32", "qzeros": "I32", "scales": "F16", "g_idx": "I32"}
        stored |= {f"{module}.{part}": StoredTensor(dtype, (8, 8)) for part, dtype in parts.items()}
    changes = {"quantization_config": settings}

    unchecked = check_tensors(Path("model"), described(layout) | changes, stored)

    assert unchecked is not None
    assert unchecked.endswith("only that its 5 layers are there and alike")
    del stored["model.layers.3.mlp.up_proj.qweight"]
    assert "model.layers.3 without what 4 others have (1): mlp.up_proj.weight" in refusal(layout, stored, **changes)
    assert "quantized tensors without a quantization_config" in refusal(layout, stored)


def test_weights_in_eight_bits_that_nothing_says_how_to_read_are_refused() -> None:
    layout = LAYOUTS["MiniCPM3"]
    stored = layout.stored()
    name = next(name for name in stored if name.endswith("up_proj.weight"))
    stored[name] = stored[name]._replace(dtype="F8_E4M3")

    assert f"quantized tensors without a quantization_config (1): {name}" in refusal(layout, stored)
