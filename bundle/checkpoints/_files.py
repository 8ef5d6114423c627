"""Reading a checkpoint's files so that anything wrong with one becomes an error a user can act on."""

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from bundle.errors import CheckpointError
from bundle.system.files import NO_ROOM
from bundle.system.text import printable

TOKENIZER_FILE: Final = re.compile(
    r"tokenizer.*\.json|(?:tokenizer|spiece)\.model|vocab\.(?:json|txt)|merges\.txt|special_tokens_map\.json|"
    r"added_tokens\.json|tekken\.json|chat_template\.(?:jinja|json)|tokenization_\w+\.py|additional_chat_templates/.+"
)
"""A file of a tokenizer or of its chat template."""
TEMPLATES: Final = "additional_chat_templates"
"""The directory of further chat templates, which transformers prefers to what tokenizer_config.json holds."""
_LFS_SIGNATURE: Final = b"version https://git-lfs.github.com/spec/v1"
_LFS_POINTER_LIMIT: Final = 1024
WHOLE_FILE_LIMIT: Final = 100_000_000  # of what is read as a whole; no real config or tokenizer comes near

_DOWNLOAD_AGAIN: Final = "Download it again."
READ_THE_CODE: Final = (
    "Read the code. If you trust it, add --trust-remote-code, or set trust_remote_code = true in the model's file in "
    "models/."
)


def shown(value: object, longest: int = 160) -> str:
    """Text from a file or a path, made safe for a terminal and cut to ``longest`` characters."""
    text = str(value)
    return printable(text if len(text) <= longest else text[: longest - 1] + "…")


def listed(items: Iterable[object], count: int = 3) -> str:
    """``a, b, c and 4 more``."""
    names = [shown(item) for item in items]
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")


def list_names(directory: Path) -> tuple[str, ...]:
    """The sorted names in a directory, dangling links included.

    Raises CheckpointError if the directory cannot be read.
    """
    with reading(directory):
        return tuple(sorted(child.name for child in directory.iterdir()))


def further_templates(directory: Path) -> list[str]:
    """The names of those in the directory ``TEMPLATES``, with its own."""
    return sorted(f"{TEMPLATES}/{path.name}" for path in (directory / TEMPLATES).glob("*.jinja"))


def mismatch(directory: Path, what: str, remedy: str, details: Sequence[str] = ()) -> CheckpointError:
    """The error for weights that are not those of the ``config.json`` beside them."""
    message = f"The weights in {shown(directory)} do not match config.json: {what}."
    return CheckpointError(message, remedy=remedy, details=details)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within it, what the operating system does not let us read raises CheckpointError, as about this path."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file or directory that the operating system does not let us read."""
    reason = shown(error.strerror or error)
    if isinstance(error, PermissionError):
        remedy = f"As its owner, give this user read permission: chmod -R u+rX {shown(path.parent)}."
        return CheckpointError(f"{shown(path)} cannot be read: {reason}.", remedy=remedy)
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return CheckpointError(
            f"{shown(path)} is a link to {shown(path.readlink())}, which does not exist.",
            remedy="In a hub cache the file behind the link was deleted or never arrived: download the model again.",
        )
    return CheckpointError(f"{shown(path)} cannot be read: {reason}.", remedy="Check the disk and the path.")


def require_content(paths: Sequence[Path], *, longest: int | None = None) -> None:
    """Raise CheckpointError unless each is a readable, regular file with its real content in it.

    It is not if it is a dangling link, empty, longer than ``longest`` bytes (for what will be read as a whole), or a
    git-lfs pointer.
    """
    pointers: list[Path] = []
    for path in paths:
        size, head, _ = _look(path)
        if size == 0:
            raise CheckpointError(f"{shown(path)} is empty (0 bytes).", remedy=_DOWNLOAD_AGAIN)
        if longest is not None and size > longest:
            raise CheckpointError(
                f"{shown(path)} is too large for a file of that name: {size:,} bytes.", remedy=_DOWNLOAD_AGAIN
            )
        if size < _LFS_POINTER_LIMIT and head.startswith(_LFS_SIGNATURE):
            pointers.append(path)
    if pointers:
        names = listed(path.name for path in pointers)
        raise CheckpointError(
            f"{shown(pointers[0].parent)} holds git-lfs pointers in place of {len(pointers)} of its files: {names}.",
            remedy="Fetch the real files: run `git lfs install` and `git lfs pull` in that directory.",
        )


def read_whole(path: Path) -> bytes:
    """A file of moderate size. Raises CheckpointError as `require_content` does."""
    require_content([path], longest=WHOLE_FILE_LIMIT)
    with reading(path):
        return path.read_bytes()


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises CheckpointError if the file cannot be read or is not a JSON object; a syntax error is given by line and
    column.
    """
    try:
        value = json.loads(read_whole(path).decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()  # fails if half a character is escaped in it
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{shown(path)} is not valid UTF-8: byte {error.start} cannot be decoded.", remedy=_DOWNLOAD_AGAIN
        ) from error
    except (ValueError, RecursionError) as error:
        where = str(error)
        if isinstance(error, json.JSONDecodeError):
            where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise CheckpointError(
            f"{shown(path)} is not valid JSON: {shown(where)}.", remedy="Fix it, or download it again."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{shown(path)} holds a JSON {type(value).__name__}, not an object.", remedy=_DOWNLOAD_AGAIN
        )
    return value


def require_whole_json(path: Path) -> None:
    """Check that a large JSON file begins and ends as an object does, without parsing it.

    Raises CheckpointError if it does not, as after a download that was cut off, and as `require_content` does.
    """
    require_content([path], longest=WHOLE_FILE_LIMIT)
    _, head, tail = _look(path)
    if not head.lstrip().startswith(b"{"):
        raise CheckpointError(f"{shown(path)} is not a JSON object.", remedy=_DOWNLOAD_AGAIN)
    if not tail.rstrip().endswith(b"}"):
        raise CheckpointError(f"{shown(path)} is truncated: its JSON object has no end.", remedy=_DOWNLOAD_AGAIN)


def download_hint(directory: Path) -> str | None:
    """The remedy for a missing or truncated file where the hub's own bookkeeping shows an unfinished download."""
    bookkeeping = directory / ".cache" / "huggingface" / "download"
    if any(bookkeeping.rglob("*.incomplete")):
        return "A download into this directory has not finished (.cache/huggingface/download): let it, or run it again."
    if (directory / "._____temp").exists():
        return "A ModelScope download into this directory has not finished (._____temp): let it, or run it again."
    return None


def _look(path: Path) -> tuple[int, bytes, bytes]:
    """A regular file's size, first and last bytes."""
    with reading(path):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CheckpointError(f"{shown(path)} is a directory; a file is expected.", remedy=_DOWNLOAD_AGAIN)
        # Opening a pipe would wait for a writer that never comes.
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{shown(path)} is not a regular file.", remedy=_DOWNLOAD_AGAIN)
        with path.open("rb") as file:
            head, size = file.read(64), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64))
            return size, head, file.read(64)


def require_space(directory: Path, needed: int, what: str, otherwise: str) -> None:
    """Raise CheckpointError where a disk has no room for ``needed`` bytes of ``what``."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise CheckpointError(
            f"{shown(directory)} has {free / 1e9:.1f} GB free; {what} needs {needed / 1e9:.1f} GB.",
            remedy=f"Free some space, or {otherwise}.",
        )


@contextlib.contextmanager
def new_directory(directory: Path, needed: int) -> Iterator[Path]:
    """A directory to write a checkpoint of ``needed`` bytes to, which becomes ``directory`` once it is complete.

    Raises CheckpointError if ``directory`` exists and is not empty, the disk is too full, or it cannot be written.
    """
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(
            f"{shown(directory)} exists and is not an empty directory.", remedy="Name a new one, or remove it first."
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        require_space(directory.parent, needed, "the checkpoint", "name a directory on another disk")
        partial = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.partial")
        try:
            partial.mkdir()
            yield partial
            partial.replace(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{shown(directory)} cannot be written: {shown(error.strerror)}.",
            remedy=f"{NO_ROOM.get(error.errno or 0, 'Free some space')}, or choose another directory.",
        ) from error
