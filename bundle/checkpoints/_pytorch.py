"""What files of ``torch.save`` hold: their tensors' names, dtypes and shapes, without torch and without the data.

Such a file is a program for pickle's machine. It is read in a confined process, where whatever it names is a stand-in,
so that none of it can do anything. Formats: ``torch.serialization`` (a zip since torch 1.6, with ``data.pkl`` and a
file for each storage; before that pickles one after the other, and the storages).
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from bundle.checkpoints._files import listed, reading, shown
from bundle.checkpoints._safetensors import BITS
from bundle.errors import CheckpointError

_PICKLE_LIMIT: Final = 100_000_000  # of names and shapes alone
_LOADED: Final = ("torch", "torchao", "collections")
"""Packages of what torch.load(weights_only=True), which the engines call, takes."""
_LEGACY_HEAD: Final = 3  # magic number, protocol version and what the machine was like
_DTYPES: Final = {
    **{"Bool": "BOOL", "Byte": "U8", "Char": "I8", "Short": "I16", "Int": "I32", "Long": "I64"},
    **{"Half": "F16", "BFloat16": "BF16", "Float": "F32", "Double": "F64", "ComplexFloat": "C64"},
    **{"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64"},
    **{"uint16": "U16", "uint32": "U32", "uint64": "U64"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"},
    **{"float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"},
}
"""safetensors' names for what torch calls its storages and dtypes."""
_SAVE_TENSORS: Final = (
    "Save the model's tensors alone: model.save_pretrained(DIR), or torch.save(model.state_dict(), FILE)."
)

_TAKE_TENSORS: Final = (
    'Where its code is installed, and if you trust the file, which this runs: `python -c "import torch; '
    "model = torch.load('FILE', 'cpu', weights_only=False); torch.save(model.state_dict(), 'FILE')\"`."
)
_GATHER: Final = (
    "Gather them before saving: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True, cpu_offload=True))."
)

Described = dict[str, tuple[str, list[int], tuple[int, int] | None]]
"""Name -> dtype, shape, and its first byte in the file and the one after its last; None if it is strewn."""


class _Storage(NamedTuple):
    dtype: str | None  # None if untyped: then in bytes
    key: str
    size: int


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    storage: _Storage
    offset: int  # in bytes
    in_one_piece: bool


class _ForeignError(Exception):
    """It holds something that is neither a tensor nor a part of one: what, and the remedy."""


class _Inert:
    """Stands for anything else: can be made, called, filled and given a state, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "_Inert":
        return self

    __setstate__ = __setitem__ = append = extend = __init__


def _tensor(storage: _Storage, offset: int, shape: Sequence[int], stride: Sequence[int], *rest: object) -> _Tensor:
    dtype = storage.dtype or next((one for one in rest if isinstance(one, str) and one in BITS), "unknown")
    end = 1 + offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) and not 0 < end * _bytes(dtype) <= storage.size * _bytes(storage.dtype):
        raise ValueError(f"a tensor of shape {list(shape)} does not fit its storage")
    steps = (math.prod(shape[dimension + 1 :]) for dimension in range(len(shape)))
    in_order = all(size == 1 or step == own for size, step, own in zip(shape, stride, steps, strict=True))
    return _Tensor(dtype, tuple(map(int, shape)), storage, offset * _bytes(dtype), in_order)


def _bytes(dtype: str | None) -> int:
    return BITS.get(dtype or "", 8) // 8


def _first(value: object, *_: object) -> object:
    return value


def _typed(rebuild: Any, _: object, arguments: Sequence[Any], __: object = None) -> object:
    return rebuild(*arguments)


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("builtins", "set"): set,
    **{("torch._utils", f"_rebuild_tensor{version}"): _tensor for version in ("", "_v2", "_v3")},
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
}


class _Reader(pickle.Unpickler):
    """Runs a pickle in which every name is one of ours."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, int] = {}  # in bytes, by key
        self.first = ""  # of the names in it

    def find_class(self, module: str, name: str) -> Any:
        self.first = self.first or f"{module}.{name}"
        if module.startswith("torch") and name.removesuffix("Storage") in _DTYPES:
            return _DTYPES[name.removesuffix("Storage")]
        if name == "DTensor":
            raise _ForeignError("pieces of tensors that were spread over several processes (DTensor)", _GATHER)
        if (module, name) not in _KNOWN and module.partition(".")[0] not in _LOADED:
            what = f"{module}.{name}, and the engines load nothing but tensors from such a file"
            raise _ForeignError(what, _SAVE_TENSORS)
        return _KNOWN.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # before torch 1.6, a module's class came with its source
            return pid[1]
        _, dtype, key, _, size, *_ = pid
        storage = _Storage(dtype if isinstance(dtype, str) else None, str(key), int(size))
        self.storages[storage.key] = storage.size * _bytes(storage.dtype)
        return storage


def describe(files: Sequence[str]) -> list[Described]:
    """The tensors of each file. Called in a confined process.

    Raises CheckpointError if a file is damaged, or not a table of tensors.
    """
    return [_describe(Path(file)) for file in files]


def _describe(path: Path) -> Described:
    try:
        with reading(path), path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, places = _of_zip(file) if is_zip else _of_pickles(file)
    except _ForeignError as error:
        what, remedy = error.args
        raise CheckpointError(
            f"{shown(path)} holds {shown(what, 300)}.", remedy=remedy.replace("FILE", str(path))
        ) from error
    except CheckpointError:
        raise
    # Broken pickles raise whatever the operations they are made of can raise.
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)} is damaged, or not a file of torch.save: {shown(str(error) or type(error).__name__, 200)}.",
            remedy="Download or save it again.",
        ) from error
    tensors = {str(name): one for name, one in content.items() if isinstance(one, _Tensor | _Inert)}
    if not tensors:
        within = f"; it has {listed(content)}" if content else ""
        raise CheckpointError(f"{shown(path)} is not a table of tensors by name{within}.", remedy=_SAVE_TENSORS)
    # The others are tensors of a class of their own, such as torchao's.
    return {
        name: (one.dtype, list(one.shape), _place(one, places)) if isinstance(one, _Tensor) else ("unknown", [], None)
        for name, one in tensors.items()
    }


def _place(tensor: _Tensor, places: Mapping[str, int]) -> tuple[int, int] | None:
    if not tensor.in_one_piece or tensor.dtype not in BITS or tensor.storage.key not in places:
        return None
    begin = places[tensor.storage.key] + tensor.offset
    return begin, begin + math.prod(tensor.shape) * _bytes(tensor.dtype)


def _load(file: IO[bytes]) -> tuple[Mapping[Any, Any], dict[str, int]]:
    """What a pickle holds, and the sizes of its storages."""
    start = file.tell()
    is_object = file.read(3)[2:] in (b"c", b"(")  # after the protocol's version: its class, or before torch 1.6 more
    file.seek(start)
    reader = _Reader(file)
    try:
        content = reader.load()
    except _ForeignError as error:
        content = error
    if is_object and isinstance(content, _Inert | _ForeignError) and reader.first != "collections.OrderedDict":
        what = f"a whole model as Python objects ({reader.first}), as torch.save(model, …) writes it, not its tensors"
        raise _ForeignError(what, _TAKE_TENSORS)
    if isinstance(content, _ForeignError):
        raise content
    return content if isinstance(content, Mapping) else {}, reader.storages


def _of_zip(file: IO[bytes]) -> tuple[Mapping[Any, Any], dict[str, int]]:
    """What a file holds, and where its storages begin."""
    if not zipfile.is_zipfile(file):  # its directory is its last part
        raise ValueError("it is truncated")
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise ValueError("it has no data.pkl")
        if entries["data.pkl"].file_size > _PICKLE_LIMIT:
            raise ValueError("its data.pkl is too large")
        content, storages = _load(io.BytesIO(archive.read(entries["data.pkl"])))
    places = {}
    for key, size in storages.items():
        entry = entries.get(f"data/{key}")
        if entry is None or entry.file_size < size:
            raise ValueError(f"storage {key} has {entry.file_size if entry else 0:,} of {size:,} bytes")
        if entry.compress_type == zipfile.ZIP_STORED:
            file.seek(entry.header_offset + 26)
            places[key] = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return content, places


def _of_pickles(file: IO[bytes]) -> tuple[Mapping[Any, Any], dict[str, int]]:
    """What a file holds, and where its storages begin."""
    for _ in range(_LEGACY_HEAD):
        _Reader(file).load()
    content, storages = _load(file)
    keys = _Reader(file).load()  # the storages', in their order; each follows after its length
    places, end = {}, file.tell()
    for key in map(str, keys):
        places[key] = end + 8
        end += 8 + storages.get(key, 0)
    if (rest := os.fstat(file.fileno()).st_size - end) < 0:
        raise ValueError(f"its data lacks {-rest:,} bytes")
    return content, places
