"""A benchmark's files on this machine: a directory or a .zip in its own layout.

A .zip is read in memory. Nothing is unpacked, so no name or link in it can reach outside, and its size is bounded
before a byte is inflated.
"""

import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path, PurePosixPath

from bundle.errors import DataError

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
    for pair, name in names.items():
        try:
            with root.joinpath(*name.split("/")).open("rb") as file:
                contents[pair] = file.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
        except OSError as error:
            raise DataError(f"{name} in {where} cannot be read: {error.strerror or error}.") from error
        else:
            _check_size(len(contents[pair]), f"{name} in {where}")
    if missing:
        there = [f"{name.rpartition('/')[0]}/{file}" for name in missing[:1] for file in _list(root, name)]
        nearby = [] if contents or not isinstance(root, Path) else _nearby(root, names.values())
        raise _missing(missing, len(names), where, there or _list(root, ""), nearby)
    return contents


def read_archive(path: Path, names: Mapping[Pair, str]) -> tuple[str, dict[Pair, bytes]]:
    """Read every named file in a .zip; they may lie in one folder inside it.

    Returns:
        That folder ("ceval-exam/", or "" where there is none), and the files' contents.

    Raises:
        DataError: It is no .zip, is damaged, encrypted or too large, holds names that point outside, or lacks files.
    """
    where = f"zip file {path}"
    contents: dict[Pair, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, where)
            folder = _folder(members, names.values(), where)
            missing = [name for name in names.values() if folder + name not in members]
            if missing:
                raise _missing(missing, len(names), where, sorted(members), [])
            total = sum(members[folder + name].file_size for name in names.values())
            if total > MAX_TOTAL_BYTES:
                raise DataError(f"{where} would take {total:,} bytes, more than the {MAX_TOTAL_BYTES:,} allowed.")
            for pair, name in names.items():
                member = members[folder + name]
                _check_size(member.file_size, f"{name} in {where}")
                if member.flag_bits & 1:
                    raise DataError(f"{name} in {where} is encrypted.", remedy="Unpack it and give the directory.")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(
                        f"{name} in {where} is compressed in an unusual way.",
                        remedy="Unpack it and give the directory.",
                    )
                contents[pair] = archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise DataError(
            f"{where} cannot be read: {error or type(error).__name__}.", remedy="Fetch it again."
        ) from error
    return folder, contents


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.replace("\\", "/")  # as some Windows programs write it
        if name.startswith("/") or ".." in PurePosixPath(name).parts or name[1:3] == ":/":
            raise DataError(f"{where} holds a name that points outside of it: {member.filename!r}.")
        if member.is_dir() or name.startswith("__MACOSX/"):
            continue
        if name in members:
            raise DataError(f"{where} holds {name} twice.")
        members[name] = member
    return members


def _folder(members: Collection[str], names: Iterable[str], where: str) -> str:
    """The one folder the benchmark's files lie in; "" when they lie at the top or nowhere."""
    wanted = set(names)
    folders = {
        member.removesuffix(name)
        for member in members
        for name in _tails(member)
        if name in wanted  # "x/val/law_val.csv" lies in "x/"
    }
    if len(folders) > 1 and "" not in folders:
        listed = ", ".join(sorted(folders))
        raise DataError(f"{where} holds the benchmark more than once: in {listed}.", remedy="Unpack it and choose one.")
    return "" if not folders or "" in folders else folders.pop()


def _tails(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _check_size(size: int, what: str) -> None:
    if size > MAX_FILE_BYTES:
        raise DataError(f"{what} is larger than {MAX_FILE_BYTES:,} bytes and can hardly be a table of questions.")


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
    return [path for path in candidates if (path / name).is_file()]


def _missing(missing: list[str], total: int, where: str, there: list[str], nearby: list[Path]) -> DataError:
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
