"""Stored tensors, and the headers of safetensors files that describe them.

Of such a file only the header is read (https://github.com/huggingface/safetensors#format): eight bytes with the
header's length, little-endian; the header, a JSON object from a tensor's name to its dtype, shape and place in the
data; the data, without a gap. For PyTorch's own files see `_pytorch`.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

from bundle.checkpoints._files import reading, shown
from bundle.errors import CheckpointError

_HEADER_LIMIT: Final = 100_000_000  # safetensors' own MAX_HEADER_SIZE
BITS: Final = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""How many each element of a dtype takes."""
FLOATS: Final = {"BF16", "F16", "F32", "F64"}
"""The dtypes of weights that are not quantized."""
_REMEDY: Final = "The file is damaged: download or save it again."


class StoredTensor(NamedTuple):
    """A tensor's dtype, in safetensors' name for it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


class Place(NamedTuple):
    """Where a tensor's values are: from one byte of a file up to another."""

    file: Path
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint's weights, or those in one file.

    Attributes:
        files: The files they are in, in name order.
        size: Their size in bytes.
        tensors: All tensors in them, by name.
        places: Where they are; in ``.bin`` files only of those in one piece.
    """

    files: tuple[Path, ...]
    size: int
    tensors: Mapping[str, StoredTensor]
    places: Mapping[str, Place]


def read_safetensors_header(path: Path) -> Weights:
    """Read and check one file's header.

    Raises CheckpointError if the file is unreadable, truncated, longer than its header says, or its header is broken.
    """
    with reading(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise _broken(path, f"truncated: {size} bytes, but its header's length alone takes 8")
        if length > _HEADER_LIMIT:
            raise _broken(path, f"not a safetensors file: its header would take {length:,} bytes")
        if size < 8 + length:
            raise _broken(path, f"truncated within its header: {size:,} of at least {8 + length:,} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"broken: its header is not JSON ({shown(error)})") from error
    if not isinstance(header, dict):
        raise _broken(path, "broken: its header is not a JSON object")
    header.pop("__metadata__", None)
    data_bytes = _check_layout(path, header)
    expected = 8 + length + data_bytes
    if size < expected:
        raise _broken(path, f"truncated: {size:,} of {expected:,} bytes")
    if size > expected:
        raise _broken(path, f"{size - expected:,} bytes longer than its header says ({size:,}, not {expected:,})")
    tensors = {name: StoredTensor(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    places = {name: Place(path, 8 + length + begin, 8 + length + end) for name, (begin, end) in offsets.items()}
    return Weights((path,), data_bytes, tensors, places)


def _check_layout(path: Path, header: dict[str, Any]) -> int:
    """Check every tensor's place; returns the size of the data in bytes."""
    places = sorted((*_place(path, name, entry), name) for name, entry in header.items())
    end = 0
    for begin, stop, name in places:
        if begin != end:
            fault = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
            raise _broken(path, f"broken: tensor {shown(name)} {fault} (byte {begin:,}, not {end:,})")
        end = stop
    return end


def _place(path: Path, name: str, entry: object) -> tuple[int, int]:
    """A tensor's first byte and the one after its last, checked against its dtype and shape."""
    if not isinstance(entry, dict):
        raise _broken(path, f"broken: its header does not describe tensor {shown(name)}")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise _broken(path, f"broken: its header gives tensor {shown(name)} no valid dtype, shape or data_offsets")
    begin, stop = offsets
    if stop < begin:
        raise _broken(path, f"broken: tensor {shown(name)} ends at byte {stop:,}, before it begins ({begin:,})")
    # A dtype newer than this table is left to the server to judge.
    bits = BITS.get(dtype)
    if bits is not None and (stop - begin) * 8 != math.prod(shape) * bits:
        raise _broken(
            path,
            f"broken: tensor {shown(name)} takes {stop - begin:,} bytes, but {shown(dtype, 20)} with shape "
            f"{shown(shape, 60)} takes {math.prod(shape) * bits // 8:,}",
        )
    return begin, stop


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    # A bool is an int, and not a size.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _broken(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"{shown(path)} is {fault}.", remedy=_REMEDY)
