"""Whether stored values are numbers that a model can have, read from their bytes without a library for tensors.

A training run that diverged, or a save that never got the weights, leaves files whose names and shapes are right.
Engines load them and reply: with the first token of the vocabulary, again and again, or with what sampling makes of it.
"""

import math
import os
import re
from collections.abc import Container, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import listed, mismatch, reading, shown
from bundle.checkpoints._safetensors import Weights
from bundle.errors import CheckpointError

_LARGEST: Final = {
    "BF16": (2, b"\x7f\xff"),
    "F16": (2, bytes([*range(0x7C, 0x80), *range(0xFC, 0x100)])),
    "F32": (4, b"\x7f\xff"),
    "F64": (8, b"\x7f\xff"),
}
"""The bytes of a value, and what the highest of them (sign and exponent) is in no finite one, or only beyond 1e38."""
_TENSORS, _SAMPLE_BYTES, _LONG_SAMPLE_BYTES = 256, 4096, 2**22
_BY_CHANCE: Final = 16
"""Bytes of values that may be zero beside others that were made zero."""
_SCALES: Final = (".scales", ".weight_scale", ".weight_scale_inv", ".absmax", ".SCB")
"""What quantized weights are multiplied by. Those of activations are left out: what was not calibrated has none."""


def is_finite(dtype: str, data: bytes) -> bool:
    """Whether all values, as stored, are finite, and not beyond 1e38, where a product no longer is.

    ``dtype`` is safetensors' name of a floating-point type of 16 bits or more.
    """
    size, largest = _LARGEST[dtype]
    highest = data[size - 1 :: size]
    return not any(byte in highest for byte in largest)


def is_zero(data: bytes) -> bool:
    """Whether all values are zero, of either sign."""
    return not data.strip(b"\x00\x80")


def _is_one_number(dtype: str, data: bytes) -> bool:
    size, _ = _LARGEST[dtype]
    return is_zero(data) or data == data[:size] * (len(data) // size)


def read_values(weights: Weights, name: str, most: int | None = None, where: float = 0.5) -> bytes:
    """A tensor's values as they are stored, or as many bytes of them as asked: ``where`` 0 the first, 1 the last.

    Raises CheckpointError if the file cannot be read.
    """
    path, begin, end = weights.places[name]
    if most is not None and end - begin > most:
        begin += int((end - begin - most) * where) // 8 * 8
        end = begin + most
    with reading(path), path.open("rb") as file:
        return os.pread(file.fileno(), end - begin, begin)


def require_values(weights: Weights) -> str | None:
    """Look at samples of a checkpoint's weights; it takes milliseconds, however large the model is.

    Returns what a user should know of them. Raises CheckpointError if weights are not finite, each of those looked at
    is one number throughout, or a part of a file is zeros.
    """
    zeros: list[str] = []
    again: list[str] = []
    seen: dict[tuple[str, bytes], str] = {}
    looked_at = 0
    for kind, endings in (("weights", (".weight",)), ("scales", _SCALES)):
        samples = {name: read_values(weights, name, _SAMPLE_BYTES) for name in _sample(weights, endings, _LARGEST)}
        for name, values in samples.items():
            if not is_finite(weights.tensors[name].dtype, values):
                raise CheckpointError(
                    f"{shown(weights.places[name].file)} holds values that are not finite (NaN or infinite), in "
                    f"{shown(name)}: no model replies sensibly with these.",
                    remedy="Training or conversion has diverged or overflowed: give an earlier checkpoint, or save "
                    "in bfloat16 what does not fit float16.",
                )
        # A norm's weight may be an offset from one, and zero.
        matrices = {name: values for name, values in samples.items() if len(weights.tensors[name].shape) > 1}
        for name in (name for name, values in matrices.items() if not any(values)):
            _require_made(weights, name)
        alike = {name for name, values in matrices.items() if _is_one_number(weights.tensors[name].dtype, values)}
        if matrices and alike == matrices.keys():
            raise CheckpointError(
                f"The {kind} in {shown(weights.files[0].parent)} are zeros, or another number throughout "
                f"({len(alike)} tensors looked at).",
                remedy="They were saved before they were there (as sharded or meta tensors): save the model again.",
            )
        zeros += [name for name, values in matrices.items() if is_zero(values)]
        for name, values in matrices.items():
            same = seen.setdefault((re.sub(r"\d+", "N", name), values), name)
            again += [f"{name} (as {same})"] if same != name and name not in alike else []
        looked_at += len(matrices)
    # So are the layers that some merges add, and what was pruned.
    told = {"are zeros": zeros, "are those of another layer too, as a merge or a faulty conversion makes them": again}
    notes = (
        f"{len(names)} of {looked_at} weights looked at {what}: {listed(names)}"
        for what, names in told.items()
        if names
    )
    return "; ".join(notes) or None


def _require_made(weights: Weights, name: str) -> None:
    """Check that the zeros in the middle of a tensor were made there: they begin and end where a tensor or a row does.

    Raises CheckpointError if not: a file of the right length has a hole.
    """
    file, *ends = weights.places[name]
    begin, end = _zeros_around(file, sum(ends) // 2)
    within = [
        one for one, (other, *place) in weights.places.items() if other == file and begin < place[1] and place[0] < end
    ]
    if not (_is_edge(weights, within, begin) and _is_edge(weights, within, end)):
        raise CheckpointError(
            f"{shown(file)} has a hole: {(end - begin) / 1e6:,.1f} of its {file.stat().st_size / 1e6:,.1f} MB are "
            f"zeros, in the midst of {listed(within)}.",
            remedy="A download, a copy or a write was cut off: repeat it, and compare the file's checksum.",
        )


def _zeros_around(file: Path, at: int) -> tuple[int, int]:
    """Where the zero bytes around a place in a file begin and end."""
    begin = end = at
    with reading(file), file.open("rb") as stream:
        while chunk := os.pread(stream.fileno(), _LONG_SAMPLE_BYTES, end):
            rest = chunk.lstrip(b"\0")
            end += len(chunk) - len(rest)
            if rest:
                break
        while length := min(_LONG_SAMPLE_BYTES, begin):
            rest = os.pread(stream.fileno(), length, begin - length).rstrip(b"\0")
            begin -= length - len(rest)
            if rest:
                break
    return begin, end


def _is_edge(weights: Weights, names: list[str], at: int) -> bool:
    """Whether a tensor, or a row of one, begins or ends at a place, but for values that are zero by chance."""
    for name in names:
        place, shape = weights.places[name], weights.tensors[name].shape
        if place.begin <= at <= place.end:
            row = max((place.end - place.begin) // math.prod(shape[:-1]), 1)
            behind = (at - place.begin) % row
            if min(behind, row - behind) <= _BY_CHANCE:
                return True
    return False


def require_gptq(weights: Weights, settings: Mapping[str, Any]) -> None:
    """Hold the values of GPTQ weights against their ``quantization_config``.

    Raises CheckpointError if engines that believe it would take other columns' scales, or zeros that are one off.
    """
    for name in _sample(weights, (".g_idx",), ("I32",)) if settings.get("desc_act") is False else ():
        if any(after < before for before, after in pairwise(memoryview(read_values(weights, name)).cast("i"))):
            raise mismatch(
                weights.files[0].parent,
                f"it says desc_act false, but {shown(name)} has the columns in another order than their groups",
                'They were quantized with "desc_act": true: set it in quantization_config.',
            )
    bits, stored = settings.get("bits"), settings.get("checkpoint_format") or "gptq"
    if settings.get("sym") is not True or bits not in (2, 4, 8) or stored not in ("gptq", "gptq_v2"):
        return
    # The zero of symmetric weights is known, and the older format has it less one (``convert_gptq_v1_to_v2_format``).
    other = "gptq" if stored == "gptq_v2" else "gptq_v2"
    zero = 2 ** (bits - 1) - (other == "gptq")
    packed = sum(zero << shift for shift in range(0, 32, bits)).to_bytes(4, "little")
    samples = [read_values(weights, name, _SAMPLE_BYTES) for name in _sample(weights, (".qzeros",), ("I32",))]
    if samples and all(one == packed * (len(one) // 4) for one in samples):
        raise mismatch(
            weights.files[0].parent,
            f"by its checkpoint_format they are {stored}, but their zeros are those of {other}",
            f'Set "checkpoint_format": "{other}" in quantization_config, or save them again.',
        )


def require_same_values(weights: Weights, first: str, second: str) -> None:
    """Compare samples of two tensors that config.json says are one.

    Raises CheckpointError if they differ: some engines then take the one, some the other.
    """
    # Tokens that were added are the last ones.
    both = [name for name in (first, second) if name in weights.places]
    if any(len({read_values(weights, name, _LONG_SAMPLE_BYTES, where) for name in both}) > 1 for where in (0, 0.5, 1)):
        raise mismatch(
            weights.files[0].parent,
            f"it says tie_word_embeddings, but {second} differs from {first}, and engines would take one or the other",
            'If the model was trained with both, set "tie_word_embeddings": false; else save it again.',
        )


def _sample(weights: Weights, endings: tuple[str, ...], dtypes: Container[str]) -> list[str]:
    """Tensors with such names and of such a dtype, spread over the files, the first and the last among them."""
    found = [
        name
        for name, place in sorted(weights.places.items(), key=lambda item: item[1])
        if name.endswith(endings) and weights.tensors[name].dtype in dtypes and place.begin < place.end
    ]
    step = (len(found) - 1) / (_TENSORS - 1)
    return found if step <= 1 else [found[round(number * step)] for number in range(_TENSORS)]
