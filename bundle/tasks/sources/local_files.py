"""A benchmark's files in a directory in its own layout."""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path

from bundle.errors import DataError
from bundle.system.files import read_regular

# Both benchmarks are a few megabytes in all; these only keep a mistaken or hostile file from filling the memory.
MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20

Pair = tuple[str, str]


def read_directory(root: Traversable, names: Mapping[Pair, str], where: str) -> dict[Pair, bytes]:
    """Read every named file below a directory.

    Raises:
        DataError: Some are missing or cannot be read; it says what is there instead.
    """
    contents: dict[Pair, bytes] = {}
    missing: list[str] = []
    total = 0
    for pair, name in names.items():
        try:
            contents[pair] = _read(root.joinpath(*name.split("/")))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
        except OSError as error:
            raise DataError(
                f"{name} in {where} cannot be read: {error.strerror or error}.",
                remedy="Check the rights of the directory and of its files.",
            ) from error
        else:
            check_size(len(contents[pair]), f"{name} in {where}")
            total += len(contents[pair])
            check_total(total, where)
    if missing:
        there = [f"{name.rpartition('/')[0]}/{file}" for name in missing[:1] for file in _list(root, name)]
        nearby = [] if contents or not isinstance(root, Path) else _nearby(root, names.values())
        raise missing_files(missing, len(names), where, there or _list(root, ""), nearby)
    return contents


def check_size(size: int, what: str) -> None:
    """Refuse a file that can be no table of questions.

    Raises:
        DataError: It is too large.
    """
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{what} is larger than {MAX_FILE_BYTES:,} bytes and can hardly be a table of questions.",
            remedy="Check that it is the benchmark's own file, or fetch it again.",
        )


def check_total(size: int, where: str) -> None:
    """Refuse files that can, all of them together, be no benchmark.

    Raises:
        DataError: They are too large.
    """
    if size > MAX_TOTAL_BYTES:
        raise DataError(
            f"The files of {where} take more than the {MAX_TOTAL_BYTES:,} bytes allowed.",
            remedy="Check that it is the benchmark, or fetch it again.",
        )


def _read(file: Traversable) -> bytes:
    if isinstance(file, Path):
        return read_regular(file, MAX_FILE_BYTES)
    return file.read_bytes()  # of the package, where that is a .zip itself


def _list(root: Traversable, name: str) -> list[str]:
    """The files beside this name, sorted; none where there is no such folder."""
    try:
        return sorted(entry.name for entry in root.joinpath(*name.split("/")[:-1]).iterdir())
    except OSError:
        return []


def _nearby(root: Path, names: Iterable[str]) -> list[Path]:
    """Directories around this one, up to two levels down, that do hold a wanted file."""
    name = next(iter(names))
    below = (path for pattern in ("*/", "*/*/") for path in root.glob(pattern))
    candidates = [root.parent, *islice(below, 1000)]  # enough for a folder of data sets, and soon done in a home
    return [path for path in candidates if os.path.isfile(path / name)]  # noqa: PTH113 - raises for none


def missing_files(
    missing: list[str], total: int, where: str, there: list[str], nearby: Sequence[Path] = ()
) -> DataError:
    """The error for files that are not there, with what there is instead, and where others like them are."""
    shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    if nearby:
        remedy = f"Did you mean {' or '.join(map(str, nearby[:3]))}?"
    else:
        remedy = "Give a directory or .zip in the benchmark's own layout, with all its files."
    return DataError(
        f"{missing[0]} is missing from {where}"
        + (f", and {len(missing) - 1} more of its {total} files" if len(missing) > 1 else "")
        + f"; there is {shown or 'nothing'}.",
        remedy=remedy,
    )
