"""Reading a checkpoint's files so that whatever is wrong with one becomes an error a user can act on."""

import json
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bundle.errors import CheckpointError
from bundle.system.text import printable as visible

LFS_SIGNATURE: Final = b"version https://git-lfs.github.com/spec/v1"
LFS_POINTER_LIMIT: Final = 1024
JSON_LIMIT: Final = 100_000_000

# What browsers, wget's kin, aria2 and the hubs' own clients call a file they have not finished.
_UNFINISHED_SUFFIXES: Final = (".incomplete", ".aria2", ".part", ".crdownload")
_DOWNLOAD_AGAIN: Final = "Download it again."


def printable(value: object, limit: int = 160) -> str:
    """Text from a file, made safe for a terminal; of a longer one no more than ``limit`` characters."""
    text = str(value)
    return visible(text if len(text) <= limit else text[: limit - 1] + "…")


def listed(items: Iterable[object], shown: int = 3) -> str:
    """``a, b, c and 4 more``."""
    names = [printable(item) for item in items]
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def list_names(directory: Path) -> tuple[str, ...]:
    """The sorted names in a directory, dangling links included.

    Raises:
        CheckpointError: The directory cannot be read.
    """
    try:
        return tuple(sorted(child.name for child in directory.iterdir()))
    except OSError as error:
        raise unreadable(directory, error) from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file or directory that the operating system does not let us read."""
    reason = printable(error.strerror or error)
    if isinstance(error, PermissionError):
        remedy = f"Give this user the right to read it: chmod -R u+rX {printable(path.parent)} (as its owner)."
        return CheckpointError(f"{printable(path)} cannot be read: {reason}.", remedy=remedy)
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        target = printable(path.readlink())
        return CheckpointError(
            f"{printable(path)} is a link to {target}, which is not there.",
            remedy="In a hub cache the file behind the link was deleted or never arrived: download the model again.",
        )
    return CheckpointError(f"{printable(path)} cannot be read: {reason}.", remedy="Check the disk and the path.")


def require_content(paths: Sequence[Path]) -> int:
    """Check that every path is a readable, regular file with its real content in it.

    Returns:
        The sum of the sizes, in bytes.

    Raises:
        CheckpointError: A file is a dangling link, unreadable, no regular file, empty, or a git-lfs pointer.
    """
    total = 0
    pointers: list[Path] = []
    for path in paths:
        size, head = _head(path)
        if size == 0:
            raise CheckpointError(f"{printable(path)} is empty (0 bytes).", remedy=_DOWNLOAD_AGAIN)
        if size < LFS_POINTER_LIMIT and head.startswith(LFS_SIGNATURE):
            pointers.append(path)
        total += size
    if pointers:
        raise CheckpointError(
            f"{printable(pointers[0].parent)} holds git-lfs pointers in place of {len(pointers)} of its files: "
            f"{listed(path.name for path in pointers)}.",
            remedy="Fetch the real files: run `git lfs install` and `git lfs pull` in that directory.",
        )
    return total


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: The file cannot be read, or holds no JSON object; a syntax error is given by line and column.
    """
    require_content([path])
    require_plausible_size(path)
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{printable(path)} is not UTF-8 text: byte {error.start} cannot be decoded.", remedy=_DOWNLOAD_AGAIN
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{printable(path)} is broken JSON: line {error.lineno}, column {error.colno}: {printable(error.msg)}.",
            remedy="Correct it, or download it again.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)} is broken JSON: {printable(error)}.", remedy="Correct it, or download it again."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{printable(path)} holds a JSON {type(value).__name__} where an object is expected.",
            remedy=_DOWNLOAD_AGAIN,
        )
    return value


def require_plausible_size(path: Path) -> None:
    """Check that a file that will be read as a whole is not far larger than any of its kind.

    Raises:
        CheckpointError: It is.
    """
    size, _ = _head(path)
    if size > JSON_LIMIT:
        raise CheckpointError(
            f"{printable(path)} is too large to be what its name says: {size:,} bytes.", remedy=_DOWNLOAD_AGAIN
        )


def require_json_ends(path: Path) -> None:
    """Check that a large JSON file begins and ends as an object does, without parsing it.

    Raises:
        CheckpointError: It does not, as when a download was cut off.
    """
    size, head = _head(path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, size - 64))
            tail = file.read(64)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head.lstrip().startswith(b"{"):
        raise CheckpointError(f"{printable(path)} does not begin as a JSON object does.", remedy=_DOWNLOAD_AGAIN)
    if not tail.rstrip().endswith(b"}"):
        raise CheckpointError(f"{printable(path)} is cut off: it does not end as JSON does.", remedy=_DOWNLOAD_AGAIN)


def unfinished_files(names: Iterable[str]) -> list[str]:
    """Those of a directory's names that downloaders give to files they have not finished."""
    return [name for name in names if name.endswith(_UNFINISHED_SUFFIXES)]


def download_hint(directory: Path) -> str | None:
    """What to say where a file is missing or cut off and the hub's own bookkeeping shows an unfinished download."""
    bookkeeping = directory / ".cache" / "huggingface" / "download"
    if any(bookkeeping.rglob("*.incomplete")):
        return "A download into this directory has not finished (.cache/huggingface/download): let it, or run it again."
    if (directory / "._____temp").exists():
        return "A ModelScope download into this directory has not finished (._____temp): let it, or run it again."
    return None


def _head(path: Path) -> tuple[int, bytes]:
    """A regular file's size and first bytes."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"{printable(path)} is a directory where a file is expected.", remedy=_DOWNLOAD_AGAIN)
        # Opening a pipe would wait for a writer that never comes.
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{printable(path)} is not a regular file.", remedy=_DOWNLOAD_AGAIN)
        with path.open("rb") as file:
            return status.st_size, file.read(64)
    except OSError as error:
        raise unreadable(path, error) from error
