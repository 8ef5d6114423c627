"""InternLM2's tensors as Llama's: other names, and the fused wqkv split into its three parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.checkpoints.internlm2.architecture import Architecture, tensor_table
from bundle.checkpoints.internlm2.safetensors_file import StoredTensor, Tensor, read_tensors, write_tensors
from bundle.errors import CheckpointError

_RENAMED = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "model.tok_embeddings": "model.embed_tokens",
    "model.norm": "model.norm",
    "output": "lm_head",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A Llama tensor, and the rows of a stored InternLM2 tensor that make it up, in order."""

    tensor: Tensor
    source: StoredTensor
    rows: tuple[tuple[int, int], ...]

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, a few at a time."""
        for start, stop in self.rows:
            yield from self.source.blocks(start, stop)


def read_checkpoint(files: Sequence[Path], config: Mapping[str, Any]) -> dict[Path, list[StoredTensor]]:
    """The tensors of a checkpoint's weight files, checked to be those of the InternLM2 model in ``config``.

    Raises:
        CheckpointError: A file is damaged, or tensors are missing, left over, or of another shape.
    """
    stored = {path: read_tensors(path) for path in files}
    # Old checkpoints hold RoPE's frequencies, which follow from the configuration.
    stored = {path: [t for t in ts if not t.tensor.name.endswith("rotary_emb.inv_freq")] for path, ts in stored.items()}
    shapes = {t.tensor.name: t.tensor.shape for ts in stored.values() for t in ts}
    expected = tensor_table(config)
    missing = [name for name in expected if name not in shapes]
    if Architecture.from_config(config).tied and missing == ["output.weight"]:
        missing = []
    problems = {
        "misses": missing,
        "holds, beside InternLM2's,": [name for name in shapes if name not in expected],
        "holds, in a shape that config.json does not give,": [
            f"{name} {list(shape)}" for name, shape in shapes.items() if expected.get(name, shape) != shape
        ],
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{files[0].parent}: the checkpoint {problem} {', '.join(names[:3])}{more}.",
                remedy="Take config.json and the weights from the same download of the model.",
            )
    return stored


def llama_parts(source: StoredTensor, architecture: Architecture) -> list[Part]:
    """The Llama tensors that an InternLM2 tensor becomes: three for a wqkv, one for any other."""
    name, shape, dtype = source.tensor.name, source.tensor.shape, source.tensor.dtype
    stem, kind = name.rsplit(".", 1)
    if not stem.endswith("attention.wqkv"):
        return [Part(Tensor(f"{_llama_stem(stem)}.{kind}", dtype, shape), source, ((0, shape[0]),))]
    # For each key/value head: its query heads, its key, its value.
    d, queries = architecture.head_dim, architecture.queries_per_group
    key, value, end = queries * d, (queries + 1) * d, (queries + 2) * d
    cuts = {"q_proj": (0, key), "k_proj": (key, value), "v_proj": (value, end)}
    layer = stem.removesuffix("attention.wqkv")
    parts = []
    for projection, (start, stop) in cuts.items():
        rows = tuple((g * end + start, g * end + stop) for g in range(architecture.kv_heads))
        part_shape = (architecture.kv_heads * (stop - start), *shape[1:])
        parts.append(Part(Tensor(f"{layer}self_attn.{projection}.{kind}", dtype, part_shape), source, rows))
    return parts


def _llama_stem(stem: str) -> str:
    if stem in _RENAMED:
        return _RENAMED[stem]
    model, layers, number, rest = stem.split(".", 3)
    return f"{model}.{layers}.{number}.{_RENAMED[rest]}"


def write_llama_shard(path: Path, stored: Sequence[StoredTensor], architecture: Architecture) -> list[Tensor]:
    """Write the Llama tensors made of one InternLM2 weight file, and say which they are.

    Raises:
        OSError: The file cannot be written.
        CheckpointError: The InternLM2 file ended early.
    """
    parts = {part.tensor: part for source in stored for part in llama_parts(source, architecture)}
    write_tensors(path, list(parts), lambda tensor: parts[tensor].blocks())
    return list(parts)
