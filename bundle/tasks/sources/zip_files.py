"""A benchmark's files in a .zip.

It is read in memory. Nothing is unpacked, so no name or link in it can reach outside, and what it takes is bounded
before a byte is inflated.
"""

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, cast

from bundle.errors import DataError
from bundle.system.files import open_regular
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources.csv_files import read_tables
from bundle.tasks.sources.tables import (
    MissingFilesError,
    Pair,
    Rows,
    check_size,
    check_total,
    missing_files,
    not_the_file,
)

MAX_DIRECTORY_BYTES: Final = 16 * 2**20
"""What the list of the archive's members may take; sixteen megabytes are some hundred thousand names."""

_UNPACK: Final = "Unpack it and give the directory."
_FETCH: Final = "Download it again."
_UTF8_NAME: Final = 0x800
_ENCRYPTED: Final = 0x1
# What a damaged archive makes Python's reader raise, found by feeding it such.
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


def read_archive(path: Path, benchmark: Benchmark, wanted: Sequence[Pair], shown: str) -> tuple[str, Rows]:
    """The wanted tables in a .zip, and the one folder inside it that they are in ("ceval-exam/", or "").

    Raises DataError if it is not a .zip, is damaged, encrypted or too large, has names that point outside, or lacks
    files, or one is malformed. ``shown`` is what it is called in errors about that one.
    """
    where = f"zip file {path}"
    names = benchmark.file_names(wanted)
    contents: dict[Pair, bytes] = {}
    try:
        with _opened(path, where) as archive:
            members = _members(archive, where)
            folder = _folder(members, names.values(), where)
            missing = [name for name in names.values() if folder + name not in members]
            if missing:
                raise _missing(missing, len(names), where, members)
            check_total(sum(members[folder + name].file_size for name in names.values()), where)
            for pair, name in names.items():
                member = members[folder + name]
                _check_member(member, f"{name} in {where}")
                contents[pair] = archive.read(member)
    except _DAMAGE as error:
        if other := not_the_file(path, where):
            raise other from None
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{where} cannot be read: {reason}.", remedy=_FETCH) from error
    return folder, read_tables(contents, benchmark, wanted, f"{shown}: {folder}")


def names_in(path: Path) -> list[str]:
    """The names of an archive's files; none if it is not a readable .zip."""
    try:
        with _opened(path, str(path)) as archive:
            return list(_members(archive, str(path)))
    except (DataError, *_DAMAGE):
        return []


def is_sound(path: Path) -> bool:
    """Whether a .zip can be read to its end, every member of it, and takes no more than it may."""
    try:
        with _opened(path, str(path)) as archive:
            check_total(sum(member.file_size for member in archive.infolist()), str(path))
            return archive.testzip() is None
    except (DataError, *_DAMAGE):
        return False


class _Reader:
    """An archive's file, which gives no more than ``MAX_DIRECTORY_BYTES`` at once until its directory is read."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self.directory_is_read = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if not self.directory_is_read and size > MAX_DIRECTORY_BYTES:
            raise DataError(f"{self._where} lists far more files than the benchmark has.", remedy=_FETCH)
        return self._file.read(size)


@contextlib.contextmanager
def _opened(path: Path, where: str) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as file:
        reader = _Reader(file, where)
        with zipfile.ZipFile(cast(BinaryIO, reader)) as archive:
            reader.directory_is_read = True
            yield archive


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = _name(member).replace("\\", "/")  # as some Windows programs write it
        if name.startswith("/") or ".." in PurePosixPath(name).parts or name[1:3] == ":/":
            raise DataError(f"{where} has a name that points outside of it: {name!r}.", remedy=_FETCH)
        if not name or name.endswith("/") or name.startswith("__MACOSX/"):
            continue
        if name in members:
            raise DataError(f"{where} has {name} twice.", remedy=_UNPACK)
        members[name] = member
    return members


def _name(member: zipfile.ZipInfo) -> str:
    """A member's name; one that does not say that it is UTF-8 is so all the same, or GBK, where it can be."""
    if not member.flag_bits & _UTF8_NAME and not member.filename.isascii():
        raw = member.filename.encode("cp437", errors="replace")
        for encoding in ("utf-8", "gb18030"):
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError:
                continue
    return member.filename


def _check_member(member: zipfile.ZipInfo, what: str) -> None:
    check_size(member.file_size, what)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(
            f"{what} is a symbolic link, which is not followed.", remedy="Store the file itself, not a link to it."
        )
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{what} is encrypted.", remedy=_UNPACK)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{what} uses an unsupported compression method.", remedy=_UNPACK)


def _folder(members: Collection[str], names: Iterable[str], where: str) -> str:
    """The one folder with the benchmark's files; "" if they are at the top or nowhere."""
    wanted = set(names)
    depths = {name.count("/") + 1 for name in wanted}
    tails = ((member, "/".join(member.split("/")[-depth:])) for member in members for depth in depths)
    folders = {member.removesuffix(tail) for member, tail in tails if tail in wanted}  # "x/val/law_val.csv": "x/"
    if len(folders) > 1 and "" not in folders:
        listed = ", ".join(sorted(folders))
        raise DataError(f"{where} has the benchmark more than once: in {listed}.", remedy="Unpack it and choose one.")
    return "" if not folders or "" in folders else folders.pop()


def _missing(missing: list[str], total: int, where: str, members: Collection[str]) -> MissingFilesError:
    error = missing_files(missing, total, where, sorted(members))
    nested = [name for name in members if name.lower().endswith(".zip")]
    if nested:
        return MissingFilesError(error.message, remedy=f"Unpack it and give the .zip inside, {nested[0]}.")
    return error
