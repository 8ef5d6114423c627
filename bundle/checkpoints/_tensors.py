"""The tensors that a model's config.json implies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from bundle.checkpoints._files import shown
from bundle.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

INTERNLM2: Final = "InternLM2ForCausalLM"
_MOST_LAYERS: Final = 10_000  # a table of every tensor is made, whatever the file says
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

    Attributes:
        hidden: Width of the residual stream.
        intermediate: Width inside the MLP.
        layers: Number of decoder layers.
        heads: Number of query heads.
        kv_heads: Number of key/value heads; it divides ``heads``.
        head_dim: Width of one attention head.
        vocab: Number of token ids.
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

        Raises:
            CheckpointError: A size is missing, is not a positive integer, or does not divide as it must.
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
        raise CheckpointError(
            f"config.json: {key} must be a positive integer, not {shown(repr(value), 80)}.", remedy=_REMEDY
        )
    return value


def internlm2_tensors(config: Mapping[str, Any]) -> Shapes:
    """Name and shape of every tensor in an InternLM2 checkpoint, in the order of the model.

    ``attention.wqkv`` is fused and grouped: for each key/value head its query heads, then its key, then its value,
    each ``head_dim`` rows.

    Raises:
        CheckpointError: As `Sizes.from_config`.
    """
    s = Sizes.from_config(config)
    rows = (s.heads + 2 * s.kv_heads) * s.head_dim
    shapes: Shapes = {"model.tok_embeddings.weight": (s.vocab, s.hidden)}
    for n in range(s.layers):
        layer = f"model.layers.{n}"
        shapes[f"{layer}.attention.wqkv.weight"] = (rows, s.hidden)
        shapes[f"{layer}.attention.wo.weight"] = (s.hidden, s.hidden)
        if config.get("bias", True):
            shapes[f"{layer}.attention.wqkv.bias"] = (rows,)
            shapes[f"{layer}.attention.wo.bias"] = (s.hidden,)
        shapes[f"{layer}.feed_forward.w1.weight"] = (s.intermediate, s.hidden)
        shapes[f"{layer}.feed_forward.w3.weight"] = (s.intermediate, s.hidden)
        shapes[f"{layer}.feed_forward.w2.weight"] = (s.hidden, s.intermediate)
        shapes[f"{layer}.attention_norm.weight"] = (s.hidden,)
        shapes[f"{layer}.ffn_norm.weight"] = (s.hidden,)
    shapes["model.norm.weight"] = (s.hidden,)
    shapes["output.weight"] = (s.vocab, s.hidden)
    return shapes


def parameter_count(shapes: Shapes) -> int:
    """How many parameters the tensors hold together."""
    return sum(map(math.prod, shapes.values()))
