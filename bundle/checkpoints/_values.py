"""Whether stored values are numbers that a model can have, told from their bytes without a library for tensors.

A training run that diverged, or a save that never got the weights, leaves files whose names and shapes are right.
Engines load them and reply: with the first token of the vocabulary, again and again, or with what sampling makes of it.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from bundle.checkpoints._files import shown, unreadable
from bundle.checkpoints._weights import StoredFile, read_safetensors_header
from bundle.errors import CheckpointError

_LARGEST: Final = {
    "BF16": (2, b"\x7f\xff"),
    "F16": (2, bytes([*range(0x7C, 0x80), *range(0xFC, 0x100)])),
    "F32": (4, b"\x7f\xff"),
    "F64": (8, b"\x7f\xff"),
}
"""The bytes of a value, and what the highest of them (sign and exponent) is in no finite one, or only beyond 1e38."""
_Item = TypeVar("_Item")
_FILES, _TENSORS, _SAMPLE_BYTES = 8, 16, 4096
_LONG_SAMPLE_BYTES: Final = 2**20
_SCALES: Final = (".scales", ".weight_scale", ".weight_scale_inv", ".absmax", ".SCB")
"""What quantized weights are multiplied by. Those of activations are left out: what was not calibrated has none."""


def is_finite(dtype: str, data: bytes) -> bool:
    """Whether all values are finite, and not beyond 1e38, where a product no longer is.

    Args:
        dtype: safetensors' name of a floating-point type of 16 bits or more.
        data: The values as they are stored.
    """
    size, largest = _LARGEST[dtype]
    highest = data[size - 1 :: size]
    return not any(byte in highest for byte in largest)


def is_zero(data: bytes) -> bool:
    """Whether all values are zero, of either sign."""
    return not data.strip(b"\x00\x80")


def read_values(path: Path, header: StoredFile, name: str, most: int | None = None) -> bytes:
    """A tensor's values as they are stored, or as many bytes of them as asked, from its middle.

    Raises:
        CheckpointError: The file cannot be read.
    """
    begin, end = header.places[name]
    if most is not None and end - begin > most:
        begin += (end - begin - most) // 2 // 8 * 8
        end = begin + most
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), end - begin, begin)
    except OSError as error:
        raise unreadable(path, error) from error


def require_values(files: Iterable[Path]) -> None:
    """Look at samples of a checkpoint's weights; it takes milliseconds, however large the model is.

    Args:
        files: Weight files; of others than safetensors nothing is looked at.

    Raises:
        CheckpointError: Weights are not finite, or all of those looked at are zero.
    """
    zeros: dict[str, list[bool]] = {"weights": [], "scales": []}
    for file in _spread([file for file in files if file.suffix == ".safetensors"], _FILES):
        header = read_safetensors_header(file)
        floats = [name for name, found in sorted(header.tensors.items()) if found.dtype in _LARGEST]
        for kind, endings in (("weights", (".weight",)), ("scales", _SCALES)):
            named = [name for name in floats if name.endswith(endings) and 0 not in header.tensors[name].shape]
            for name in _spread(named, _TENSORS):
                tensor = header.tensors[name]
                values = read_values(file, header, name, _SAMPLE_BYTES)
                if not is_finite(tensor.dtype, values):
                    raise CheckpointError(
                        f"{shown(file)} holds values that are not finite (NaN or infinite), in {shown(name)}: no model "
                        "replies sensibly with these.",
                        remedy="Training or conversion has diverged or overflowed: give an earlier checkpoint, or save "
                        "in bfloat16 what does not fit float16.",
                    )
                if len(tensor.shape) > 1:  # a norm's weight may be an offset from one, and zero
                    zeros[kind].append(is_zero(values))
    for kind, found in zeros.items():
        if found and all(found):
            raise CheckpointError(
                f"The {kind} in {shown(file.parent)} are zeros ({len(found)} tensors looked at).",
                remedy="They were saved before they were there (as from sharded or meta tensors): save the model "
                "again.",
            )


def require_groups_in_order(files: Iterable[Path]) -> None:
    """Check that the columns of GPTQ weights are in the order of their groups, as they are without ``desc_act``.

    Args:
        files: Weight files; of others than safetensors nothing is looked at.

    Raises:
        CheckpointError: They are not: engines that are told so ignore ``g_idx``, and take other columns' scales.
    """
    for file in _spread([file for file in files if file.suffix == ".safetensors"], _FILES):
        header = read_safetensors_header(file)
        indices = [
            name for name, one in sorted(header.tensors.items()) if name.endswith(".g_idx") and one.dtype == "I32"
        ]
        for name in _spread(indices, _TENSORS):
            data = read_values(file, header, name)
            groups = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
            if any(after < before for before, after in pairwise(groups)):
                raise CheckpointError(
                    f"The weights in {shown(file.parent)} do not match config.json: it says desc_act false, but "
                    f"{shown(name)} has the columns in another order than their groups.",
                    remedy='They were quantized with "desc_act": true: set it in quantization_config.',
                )


def require_same_values(files: Iterable[Path], first: str, second: str) -> None:
    """Compare samples of two tensors that config.json says are one.

    Args:
        files: Weight files; of others than safetensors nothing is looked at.

    Raises:
        CheckpointError: They differ: some engines then take the one, some the other.
    """
    samples: dict[str, bytes] = {}
    for file in files:
        header = read_safetensors_header(file) if file.suffix == ".safetensors" else StoredFile({}, 0)
        for name in header.tensors.keys() & {first, second}:
            samples[name] = read_values(file, header, name, _LONG_SAMPLE_BYTES)
    if samples.get(first) != samples.get(second):
        raise CheckpointError(
            f"The weights in {shown(file.parent)} do not match config.json: it says tie_word_embeddings, but "
            f"{second} differs from {first}. Engines would take one or the other.",
            remedy='If the model was trained with both, set "tie_word_embeddings": false; else save it again.',
        )


def _spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most this many, the first and the last among them."""
    step = (len(items) - 1) / (most - 1)
    return list(items) if step <= 1 else [items[round(number * step)] for number in range(most)]
