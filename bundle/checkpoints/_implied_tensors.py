"""The tensors that a model's config.json implies.

Names are those of published checkpoints; transformers 5 renames some when it loads them (fused experts), and back when
it saves.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from bundle.checkpoints._files import listed, shown
from bundle.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

INTERNLM2: Final = "InternLM2ForCausalLM"
_SIZES: Final = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")

_Switch = tuple[str, bool]
"""A key of config.json, and what it is where the file does not give it."""
_NEVER: Final = ("", False)
_ATTENTION: Final = ("attention_bias", False)


class Family(NamedTuple):
    """What sets an architecture apart from Llama; defaults are those of transformers' configuration classes.

    Attributes:
        needed: The keys that config.json must give, besides the sizes.
        norms: Those of a layer, besides Llama's two.
        has_head_norms: Whether queries and keys have norms.
        head_dim: What it is by default, if not ``hidden_size`` by the number of heads.
        rotates_a_part: Whether positions rotate a part of each head.
        model_type: As in config.json, if it is not the name in small letters.
    """

    needed: tuple[str, ...] = ("num_key_value_heads",)
    qkv_bias: _Switch = _NEVER
    o_bias: _Switch = _NEVER
    mlp_bias: _Switch = _NEVER
    norms: tuple[str, ...] = ()
    has_head_norms: bool = False
    fuses_qkv: bool = False
    fuses_gate_up: bool = False
    head_dim: int | None = None
    is_tied: bool = False
    rotates_a_part: bool = False
    model_type: str | None = None


_EXPERTS: Final = ("num_key_value_heads", "num_experts", "moe_intermediate_size")
_GEMMA: Final = Family(("num_key_value_heads", "head_dim"), _ATTENTION, _ATTENTION, is_tied=True)
_GEMMA_2: Final = _GEMMA._replace(norms=("pre_feedforward_layernorm", "post_feedforward_layernorm"))
_GLM: Final = Family(qkv_bias=("attention_bias", True), fuses_gate_up=True, head_dim=128, rotates_a_part=True)
_FAMILIES: Final = {
    "Gemma": _GEMMA,
    "Gemma2": _GEMMA_2,
    "Gemma3": _GEMMA_2._replace(has_head_norms=True, model_type="gemma3_text"),
    "Glm": _GLM,
    "Glm4": _GLM._replace(norms=("post_self_attn_layernorm", "post_mlp_layernorm")),
    "InternLM2": Family(()),
    "InternLM3": Family(qkv_bias=("qkv_bias", False), o_bias=("bias", False), mlp_bias=("bias", False)),
    "Llama": Family((), _ATTENTION, _ATTENTION, ("mlp_bias", False)),
    "Mistral": Family(),
    "Mixtral": Family(("num_key_value_heads", "num_local_experts")),
    "Phi3": Family(fuses_qkv=True, fuses_gate_up=True, rotates_a_part=True),
    "Qwen2": Family(qkv_bias=("", True)),
    "Qwen2Moe": Family(
        (*_EXPERTS, "shared_expert_intermediate_size"), qkv_bias=("qkv_bias", True), model_type="qwen2_moe"
    ),
    "Qwen3": Family(qkv_bias=_ATTENTION, o_bias=_ATTENTION, has_head_norms=True, head_dim=128),
    "Qwen3Moe": Family(_EXPERTS, _ATTENTION, _ATTENTION, has_head_norms=True, model_type="qwen3_moe"),
}
_MOST_LAYERS: Final = 10_000  # a table of every tensor is made, whatever the file says
_MOST_EXPERTS: Final = 200_000  # in all layers together
_JUDGES: Final = re.compile(r"For(?:\w*Classification|\w*RewardModel|QuestionAnswering|MaskedLM)$")
_REMEDY: Final = "Compare config.json with the one the model was published with."


def is_internlm2(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes an InternLM2 (or 2.5) language model.

    ``architectures`` decides where it is given, so a reward model of the same family does not count.
    """
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return INTERNLM2 in architectures
    return config.get("model_type") == "internlm2"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a decoder-only transformer.

    ``hidden`` is the width of the residual stream, ``intermediate`` that inside the MLP, ``head_dim`` that of one
    attention head. ``heads`` counts query heads, ``kv_heads``, which divides it, key/value heads; ``vocab`` counts
    token ids.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the sizes from a config.json.

        Raises CheckpointError if a size is missing, is not a positive integer, or does not divide as it must.
        """
        heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
        kv_heads = heads if config.get("num_key_value_heads") is None else _size(config, "num_key_value_heads")
        own_dim = config.get("head_dim") is not None
        if heads % kv_heads or (hidden % heads and not own_dim):
            raise CheckpointError(
                f"config.json: {hidden} hidden, {heads} heads and {kv_heads} key/value heads do not divide evenly.",
                remedy=_REMEDY,
            )
        return cls(
            hidden=hidden,
            intermediate=_size(config, "intermediate_size"),
            layers=_size(config, "num_hidden_layers", most=_MOST_LAYERS),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_size(config, "head_dim") if own_dim else hidden // heads,
            vocab=_size(config, "vocab_size"),
        )


def _size(config: Mapping[str, Any], key: str, most: int = 2**40) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        bound = f" of at most {most:,}" if isinstance(value, int) and value > most else ""
        raise CheckpointError(
            f"config.json: {key} must be a positive integer{bound}, not {shown(repr(value), 80)}.", remedy=_REMEDY
        )
    return value


def implied_tensors(config: Mapping[str, Any]) -> Shapes | str:
    """Name and shape of every tensor that a config.json implies; or why they do not follow from it.

    Raises CheckpointError as `Sizes.from_config` does.
    """
    architecture, family = architecture_of(config), family_of(config)
    if family is None:
        return f"unknown tensor layout of the architecture {shown(architecture)}"
    if config.get("num_experts") is None and "num_local_experts" in config:  # as transformers 5 writes it
        config = {**config, "num_experts": config["num_local_experts"]}
    if absent := [key for key in (*_SIZES, *family.needed) if config.get(key) is None]:
        return f"config.json does not give {listed(absent)}"
    return internlm2_tensors(config) if architecture == INTERNLM2 else _llama_tensors(config, family)


def without_text(architecture: str) -> bool:
    """Whether a model of this class generates no text, but gives scores or classes, or has no output layer."""
    is_body = architecture.endswith("Model") and architecture.removesuffix("Model") in _FAMILIES
    return is_body or _JUDGES.search(architecture) is not None


def family_of(config: Mapping[str, Any]) -> Family | None:
    """The family of a config.json's architecture; None if its tensors do not follow from it."""
    name, causal, rest = str(architecture_of(config)).partition("ForCausalLM")
    return _FAMILIES.get(name) if causal and not rest else None


def architecture_of(config: Mapping[str, Any]) -> object:
    architectures = config.get("architectures")
    if is_internlm2(config):
        return INTERNLM2
    return architectures[0] if isinstance(architectures, list) and architectures else None


def internlm2_tensors(config: Mapping[str, Any]) -> Shapes:
    """The tensors of an InternLM2 model, in its order. Raises CheckpointError as `Sizes.from_config` does.

    ``attention.wqkv`` is fused and grouped: for each key/value head its query heads, then its key, then its value, each
    ``head_dim`` rows.
    """
    s, bias = Sizes.from_config(config), bool(config.get("bias", True))
    layer = {
        **_linear("attention.wqkv", (s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden, bias=bias),
        **_linear("attention.wo", s.hidden, s.hidden, bias=bias),
        **_gated("feed_forward", s.hidden, s.intermediate, ("w1", "w3", "w2")),
        "attention_norm.weight": (s.hidden,),
        "ffn_norm.weight": (s.hidden,),
    }
    shapes: Shapes = {"model.tok_embeddings.weight": (s.vocab, s.hidden)}
    for n in range(s.layers):
        shapes |= _within(f"model.layers.{n}", layer)
    return {**shapes, "model.norm.weight": (s.hidden,), "output.weight": (s.vocab, s.hidden)}


def _llama_tensors(config: Mapping[str, Any], family: Family) -> Shapes:
    """The tensors of Llama and its kind."""
    if family.head_dim is not None:
        config = {"head_dim": family.head_dim, **config}
    s = Sizes.from_config(config)
    norms = ("input_layernorm", "post_attention_layernorm", *family.norms)
    beside = {**_attention(config, family, s), **{f"{name}.weight": (s.hidden,) for name in norms}}
    shapes: Shapes = {"model.embed_tokens.weight": (s.vocab, s.hidden)}
    for n in range(s.layers):
        shapes |= _within(f"model.layers.{n}", {**beside, **_feed_forward(config, family, s, n)})
    return {**shapes, "model.norm.weight": (s.hidden,), "lm_head.weight": (s.vocab, s.hidden)}


def _attention(config: Mapping[str, Any], family: Family, s: Sizes) -> Shapes:
    q_rows, kv_rows = s.heads * s.head_dim, s.kv_heads * s.head_dim
    shapes = _linear("self_attn.o_proj", s.hidden, q_rows, bias=bool(config.get(*family.o_bias)))
    if family.fuses_qkv:
        return shapes | _linear("self_attn.qkv_proj", q_rows + 2 * kv_rows, s.hidden)
    for name, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
        shapes |= _linear(f"self_attn.{name}_proj", rows, s.hidden, bias=bool(config.get(*family.qkv_bias)))
    if family.has_head_norms:
        shapes |= dict.fromkeys(("self_attn.q_norm.weight", "self_attn.k_norm.weight"), (s.head_dim,))
    return shapes


def _feed_forward(config: Mapping[str, Any], family: Family, s: Sizes, layer: int) -> Shapes:
    if "num_local_experts" in family.needed:
        return _experts("block_sparse_moe", config, "num_local_experts", s.intermediate, ("w1", "w3", "w2"))
    if "num_experts" in family.needed and _is_sparse(config, layer):
        shapes = _experts("mlp", config, "num_experts", _size(config, "moe_intermediate_size"), _GATED)
        if "shared_expert_intermediate_size" in family.needed:
            shapes |= _gated("mlp.shared_expert", s.hidden, _size(config, "shared_expert_intermediate_size"), _GATED)
            shapes |= _linear("mlp.shared_expert_gate", 1, s.hidden)
        return shapes
    if family.fuses_gate_up:
        gate_up = _linear("mlp.gate_up_proj", 2 * s.intermediate, s.hidden)
        return gate_up | _linear("mlp.down_proj", s.hidden, s.intermediate)
    return _gated("mlp", s.hidden, s.intermediate, _GATED, bias=bool(config.get(*family.mlp_bias)))


_GATED: Final = ("gate_proj", "up_proj", "down_proj")


def _within(place: str, shapes: Shapes) -> Shapes:
    return {f"{place}.{name}": shape for name, shape in shapes.items()}


def _linear(name: str, rows: int, columns: int, *, bias: bool = False) -> Shapes:
    weight: Shapes = {f"{name}.weight": (rows, columns)}
    return weight | {f"{name}.bias": (rows,)} if bias else weight


def _gated(name: str, hidden: int, width: int, parts: tuple[str, str, str], *, bias: bool = False) -> Shapes:
    """A gated MLP; ``parts`` are the names of gate, up and down projection."""
    gate, up, down = parts
    return {
        **_linear(f"{name}.{gate}", width, hidden, bias=bias),
        **_linear(f"{name}.{up}", width, hidden, bias=bias),
        **_linear(f"{name}.{down}", hidden, width, bias=bias),
    }


def _experts(name: str, config: Mapping[str, Any], key: str, width: int, parts: tuple[str, str, str]) -> Shapes:
    hidden, count = _size(config, "hidden_size"), _size(config, key, most=_MOST_EXPERTS // config["num_hidden_layers"])
    shapes = _linear(f"{name}.gate", count, hidden)
    for n in range(count):
        shapes |= _gated(f"{name}.experts.{n}", hidden, width, parts)
    return shapes


def _is_sparse(config: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer of a Qwen model has experts."""
    dense, step = config.get("mlp_only_layers"), config.get("decoder_sparse_step")
    if isinstance(dense, list) and layer in dense:
        return False
    return step is None or (layer + 1) % _size(config, "decoder_sparse_step") == 0


def parameter_count(shapes: Shapes) -> int:
    """How many parameters the tensors hold together."""
    return sum(map(math.prod, shapes.values()))
