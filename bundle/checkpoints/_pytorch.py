"""What files of ``torch.save`` hold: their tensors' names, dtypes and shapes, without torch and without the data.

Such a file is a program for pickle's machine. It is read in a confined process, where whatever it names is a stand-in,
so that none of it can do anything. Formats: ``torch.serialization`` (a zip since torch 1.6, with ``data.pkl`` and a
file for each storage; before that pickles one after the other, and the storages).
"""

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from bundle.checkpoints._files import listed, shown, unreadable
from bundle.checkpoints._weights import BITS
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

Described = dict[str, tuple[str, list[int]]]
"""Name -> dtype and shape."""


class _Storage(NamedTuple):
    dtype: str | None  # None if untyped: then in bytes
    key: str
    size: int


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    storage: _Storage


class _ForeignError(Exception):
    """It names something that is neither a tensor nor a part of one."""


class _Inert:
    """Stands for anything else: can be made, called, filled and given a state, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "_Inert":
        return self

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...


def _tensor(storage: _Storage, offset: int, shape: Sequence[int], stride: Sequence[int], *rest: object) -> _Tensor:
    dtype = storage.dtype or next((one for one in rest if isinstance(one, str) and one in BITS), "unknown")
    end = 1 + offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) and not 0 < end * _bytes(dtype) <= storage.size * _bytes(storage.dtype):
        raise ValueError(f"a tensor of shape {list(shape)} does not fit its storage")
    return _Tensor(dtype, tuple(map(int, shape)), storage)


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
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch") and name.removesuffix("Storage") in _DTYPES:
            return _DTYPES[name.removesuffix("Storage")]
        if (module, name) not in _KNOWN and module.partition(".")[0] not in _LOADED:
            raise _ForeignError(f"{module}.{name}")
        return _KNOWN.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, size, *_ = pid
        storage = _Storage(dtype if isinstance(dtype, str) else None, str(key), int(size))
        self.storages[storage.key] = storage.size * _bytes(storage.dtype)
        return storage


def describe(files: Sequence[str]) -> list[Described]:
    """The tensors of each file. Called in a confined process.

    Raises:
        CheckpointError: A file is damaged, or not a table of tensors.
    """
    return [_describe(Path(file)) for file in files]


def _describe(path: Path) -> Described:
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content = _of_zip(file) if is_zip else _of_pickles(file)
    except _ForeignError as error:
        raise CheckpointError(
            f"{shown(path)} holds {shown(error)}, and the engines load nothing but tensors from such a file.",
            remedy=_SAVE_TENSORS,
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    # Broken pickles raise whatever the operations they are made of can raise.
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)} is damaged, or not a file of torch.save: {shown(str(error) or type(error).__name__, 200)}.",
            remedy="Download or save it again.",
        ) from error
    tensors = {str(name): one for name, one in content.items() if isinstance(one, _Tensor | _Inert)}
    if not tensors:
        within = f"; it has {listed(content)}" if content else ""
        raise CheckpointError(
            f"{shown(path)} is not a table of tensors by name{within}.",
            remedy=_SAVE_TENSORS,
        )
    # The others are tensors of a class of their own, such as torchao's.
    return {
        name: (one.dtype, list(one.shape)) if isinstance(one, _Tensor) else ("unknown", [])
        for name, one in tensors.items()
    }


def _of_zip(file: IO[bytes]) -> Mapping[Any, Any]:
    if not zipfile.is_zipfile(file):  # its directory is its last part
        raise ValueError("it is truncated")
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise ValueError("it has no data.pkl")
        if entries["data.pkl"].file_size > _PICKLE_LIMIT:
            raise ValueError("its data.pkl is too large")
        reader = _Reader(io.BytesIO(archive.read(entries["data.pkl"])))
        content = reader.load()
    for key, size in reader.storages.items():
        entry = entries.get(f"data/{key}")
        if entry is None or entry.file_size < size:
            raise ValueError(f"storage {key} has {entry.file_size if entry else 0:,} of {size:,} bytes")
    return content if isinstance(content, Mapping) else {}


def _of_pickles(file: IO[bytes]) -> Mapping[Any, Any]:
    for _ in range(_LEGACY_HEAD):
        _Reader(file).load()
    reader = _Reader(file)
    content = reader.load()
    _Reader(file).load()  # the storages' keys; each follows after its length
    rest = os.fstat(file.fileno()).st_size - file.tell()
    needed = sum(8 + size for size in reader.storages.values())
    if rest < needed:
        raise ValueError(f"its data has {rest:,} of {needed:,} bytes")
    return content if isinstance(content, Mapping) else {}
