"""Regular files, whatever is really there, and where a user keeps them."""

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final

from bundle.errors import UsageError
from bundle.system.text import quoted

NO_ROOM: Final = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Raise the limit on the size of a file (`ulimit -f`)",
}
"""What helps where a file cannot grow, by the number of the error."""


def user_path(path: str | Path, remedy: str = "Give the full path.") -> Path:
    """A path as a user writes it. Raises UsageError if it begins with the ``~`` of someone without a home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"No home directory is known for {quoted(path)}.", remedy=remedy) from None


def cache_path(path: str, variable: str) -> Path:
    """A directory of this program's, which ``variable`` can name. Raises UsageError as `user_path`."""
    return user_path(path, f"Set {variable} to a directory that can be written.")


def text_if_there(path: Path) -> str:
    """The text of a file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Opening a pipe waits for a writer that may never come, and a device may never end: for these OSError is raised, too.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:
        raise OSError(errno.EINVAL, "a path cannot contain a NUL character or half a character") from None
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.EINVAL, "it is a symbolic link to a path that does not exist") from None
        raise
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file. Raises OSError if it cannot be read, or is longer than ``limit`` bytes."""
    with open_regular(path) as file:
        # Python allocates as much as it is to read at most, which `ulimit -v` may not allow.
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
    return data


def open_for_writing(path: Path, flags: int) -> int:
    """Open a regular file of this program's for writing, and return a descriptor that the caller closes.

    Neither is a link followed, which may lead to a file that is not this program's, nor a pipe waited for: both raise
    OSError. ``flags`` go with ``os.O_WRONLY``, such as ``os.O_CREAT | os.O_APPEND``.
    """
    safe = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, os.O_WRONLY | safe | flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.EINVAL, _IRREGULAR) from None
        raise
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        os.set_blocking(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


_IRREGULAR = "it is a pipe, a device or a socket, not a regular file"


def sync(descriptor: int) -> None:
    """Have the system write a file to the disk, where its file system can be told to: some network drives cannot."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, _IRREGULAR)


def model_name(directory: str | PurePath) -> str:
    """The name of the model in a directory: the directory's own, or in a hub cache that of its repository.

    The Hub's clients keep a model as ``models--OWNER--NAME/snapshots/REVISION``.
    """
    *_, repository, snapshots, name = ("", "", *PurePath(directory).parts)
    kind, *rest = repository.split("--")
    return rest[-1] if snapshots == "snapshots" and kind == "models" and rest and rest[-1] else name


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint's JSON file as they are published: indented, not escaped."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
