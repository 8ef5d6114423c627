"""Reading and writing safetensors files one tensor at a time, as bytes.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, little-endian; the
header, JSON, with dtype, shape and byte range of every tensor; then the tensors one after another. Working on bytes
keeps every dtype as it is (NumPy has no bfloat16), and memory use at one block.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import CheckpointError

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
BLOCK = 16 * 2**20
_MAX_HEADER = 100 * 10**6
_REMEDY = "Download the file again; its length on the hub tells whether it is complete."


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of ``shape`` in ``dtype`` (safetensors' name for it, such as ``BF16``)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its first byte lies in ``path``."""

    tensor: Tensor
    path: Path
    offset: int

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from row ``start`` up to row ``stop`` (default: all rows), in blocks of at most 16 MiB."""
        rows = self.tensor.shape[0]
        row_bytes = self.tensor.nbytes // rows
        left = ((rows if stop is None else stop) - start) * row_bytes
        with self.path.open("rb") as file:
            file.seek(self.offset + start * row_bytes)
            while left > 0:
                block = file.read(min(BLOCK, left))
                if not block:
                    raise CheckpointError(f"{self.path}: ended inside tensor {self.tensor.name}.", remedy=_REMEDY)
                left -= len(block)
                yield block


def read_tensors(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, in the order of their bytes.

    Raises:
        CheckpointError: The file is unreadable, truncated, no safetensors file, or holds tensors that are not plain
            floating point.
    """
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            header = file.read(length) if len(prefix) == 8 and length <= _MAX_HEADER else b""
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}).", remedy="Check the disk and the file's rights."
        ) from error
    if prefix == b"version ":
        raise CheckpointError(f"{path} is a git-lfs pointer, not the weights.", remedy="Run `git lfs pull` there.")
    if len(prefix) < 8 or len(header) < length:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({size} bytes).", remedy=_REMEDY)
    try:
        entries = json.loads(header)
        stored = [_stored(path, 8 + length, name, entry) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its safetensors header is broken ({error}).", remedy=_REMEDY) from error
    stored.sort(key=lambda s: s.offset)
    end = max((s.offset + s.tensor.nbytes for s in stored), default=8 + length)
    if end > size:
        raise CheckpointError(f"{path} is truncated: {size} bytes of {end}.", remedy=_REMEDY)
    return stored


def _stored(path: Path, data_start: int, name: str, entry: dict[str, object]) -> StoredTensor:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name} is {dtype}; only plain floating-point weights can be rewritten.",
            remedy="Use the checkpoint that has not been quantized.",
        )
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError(f"tensor {name} has no shape or no byte range")
    start, stop = (int(offset) for offset in offsets)
    tensor = Tensor(name, str(dtype), tuple(int(dim) for dim in shape))
    if start < 0 or stop - start != tensor.nbytes or min(tensor.shape, default=1) < 1:
        raise ValueError(f"tensor {name} of shape {shape} has {stop - start} bytes")
    return StoredTensor(tensor, path, data_start + start)


def write_tensors(path: Path, tensors: Sequence[Tensor], content: Callable[[Tensor], Iterable[bytes]]) -> None:
    """Write a safetensors file, asking ``content`` for the bytes of one tensor after another.

    Raises:
        OSError: The file cannot be written.
        ValueError: ``content`` gave more or fewer bytes than the tensor has.
    """
    # Loaders of PyTorch models insist on the format being named.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": (offset, offset + tensor.nbytes),
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors begin aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors:
            written = sum(file.write(block) for block in content(tensor))
            if written != tensor.nbytes:
                raise ValueError(f"tensor {tensor.name}: {written} bytes for {tensor.nbytes}")


def write_index(path: Path, shards: dict[str, list[Tensor]]) -> None:
    """Write the ``model.safetensors.index.json`` of a checkpoint whose ``shards`` (file name: tensors) are these."""
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensors in shards.values() for tensor in tensors)},
        "weight_map": {tensor.name: shard for shard, tensors in shards.items() for tensor in tensors},
    }
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
