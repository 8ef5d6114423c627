"""The shape of an InternLM2 model, read from its config.json, and the tensors a checkpoint of that shape holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bundle.errors import CheckpointError
from bundle.system.text import one_line

ARCHITECTURE = "InternLM2ForCausalLM"
MODEL_TYPE = "internlm2"
_MOST_LAYERS = 10_000  # a table of every tensor is made, whatever the file says


def is_internlm2(config: Mapping[str, object]) -> bool:
    """Whether a config.json describes an InternLM2 (or 2.5) language model.

    ``architectures`` decides where it is given, so that a reward model of the same family is told apart.
    """
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return ARCHITECTURE in architectures
    return config.get("model_type") == MODEL_TYPE


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of an InternLM2 model.

    Attributes:
        hidden_size: Width of the residual stream.
        intermediate_size: Width inside the MLP.
        layers: Number of decoder layers.
        heads: Number of query heads.
        kv_heads: Number of key/value heads; it divides ``heads``.
        vocab_size: Number of token ids.
        bias: Whether the attention projections (wqkv and wo) have a bias; the MLP never has one.
        tied: Whether the output projection is the embedding, so that the checkpoint may do without ``output.weight``.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    bias: bool
    tied: bool

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads

    @property
    def queries_per_group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Read the sizes from a config.json, with InternLM2's own defaults for what it leaves out.

        Raises:
            CheckpointError: A size is missing, is not a positive whole number, or does not divide as it must.
        """
        heads = _size(config, "num_attention_heads")
        architecture = cls(
            hidden_size=_size(config, "hidden_size"),
            intermediate_size=_size(config, "intermediate_size"),
            layers=_size(config, "num_hidden_layers", most=_MOST_LAYERS),
            heads=heads,
            kv_heads=heads if config.get("num_key_value_heads") is None else _size(config, "num_key_value_heads"),
            vocab_size=_size(config, "vocab_size"),
            bias=bool(config.get("bias", True)),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
        if architecture.hidden_size % heads or heads % architecture.kv_heads:
            raise CheckpointError(
                f"config.json: {architecture.hidden_size} hidden, {heads} heads and {architecture.kv_heads} key/value "
                "heads do not divide evenly.",
                remedy="Compare config.json with the one the model was published with.",
            )
        return architecture


def _size(config: Mapping[str, object], key: str, most: int = 2**40) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise CheckpointError(
            f"config.json: {key} must be a positive whole number, not {one_line(repr(value), 80)}.",
            remedy="Compare config.json with the one the model was published with.",
        )
    return value


def tensor_table(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in an InternLM2 checkpoint, in the order of the model.

    ``attention.wqkv`` is fused and grouped: for each key/value head its query heads, then its key, then its value,
    each ``head_dim`` rows.

    Raises:
        CheckpointError: As ``Architecture.from_config``.
    """
    a = Architecture.from_config(config)
    wqkv_rows = (a.heads + 2 * a.kv_heads) * a.head_dim
    table: dict[str, tuple[int, ...]] = {"model.tok_embeddings.weight": (a.vocab_size, a.hidden_size)}
    for n in range(a.layers):
        layer = f"model.layers.{n}"
        table[f"{layer}.attention.wqkv.weight"] = (wqkv_rows, a.hidden_size)
        table[f"{layer}.attention.wo.weight"] = (a.hidden_size, a.hidden_size)
        if a.bias:
            table[f"{layer}.attention.wqkv.bias"] = (wqkv_rows,)
            table[f"{layer}.attention.wo.bias"] = (a.hidden_size,)
        table[f"{layer}.feed_forward.w1.weight"] = (a.intermediate_size, a.hidden_size)
        table[f"{layer}.feed_forward.w3.weight"] = (a.intermediate_size, a.hidden_size)
        table[f"{layer}.feed_forward.w2.weight"] = (a.hidden_size, a.intermediate_size)
        table[f"{layer}.attention_norm.weight"] = (a.hidden_size,)
        table[f"{layer}.ffn_norm.weight"] = (a.hidden_size,)
    table["model.norm.weight"] = (a.hidden_size,)
    table["output.weight"] = (a.vocab_size, a.hidden_size)
    return table


def parameter_count(config: Mapping[str, object]) -> int:
    """How many parameters the tensors of ``tensor_table`` hold together."""
    return sum(math.prod(shape) for shape in tensor_table(config).values())
