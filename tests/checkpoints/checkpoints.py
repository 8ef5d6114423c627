"""Small checkpoint directories, written by hand so that each can be wrong in one way."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

CONFIG: dict[str, Any] = {
    "architectures": ["InternLM2ForCausalLM"],
    "model_type": "internlm2",
    "vocab_size": 64,
    "max_position_embeddings": 2048,
}
TENSORS: dict[str, tuple[str, list[int]]] = {"embed": ("BF16", [64, 4]), "norm": ("F32", [4])}
QUANTIZED: dict[str, tuple[str, list[int]]] = TENSORS | {"packed": ("U8", [4])}
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3780000000\n"
INDEX = "model.safetensors.index.json"
_BYTES = {"BF16": 2, "F32": 4, "U8": 1}


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """A safetensors file with this header and this data, whether or not they fit together."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def describe(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> tuple[dict[str, Any], int]:
    """The header for tensors that follow each other, and the size of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return header, end


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]] = TENSORS) -> Path:
    header, size = describe(tensors)
    path.write_bytes(safetensors_bytes(header, bytes(size)))
    return path


def write_pytorch(path: Path, tensors: Any = None, *, legacy: bool = False) -> Path:
    """What ``torch.save`` writes of tensors, or of those of `TENSORS`; ``legacy``: as before torch 1.6."""
    torch = pytest.importorskip("torch")
    dtypes = {"BF16": torch.bfloat16, "F32": torch.float32}
    whole = {name: torch.zeros(shape, dtype=dtypes[dtype]) for name, (dtype, shape) in TENSORS.items()}
    torch.save(whole if tensors is None else tensors, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_checkpoint(directory: Path, *, config: Mapping[str, Any] = CONFIG, shards: int = 1) -> Path:
    """A complete checkpoint: one weight file, or as many shards as asked, each with one tensor, and their index."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config)
    write_json(directory / "tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}})
    if shards == 1:
        quantized = "quantization_config" in json.dumps(config)
        write_safetensors(directory / "model.safetensors", QUANTIZED if quantized else TENSORS)
        return directory
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        write_safetensors(directory / name, {f"layer.{number}": ("BF16", [8, 8])})
    write_json(directory / INDEX, {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}})
    return directory
