"""Opening what should be an ordinary file, whatever there really is under its name."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Opening a pipe waits for a writer that may never come, and a device may never end; neither is opened here.

    Raises:
        OSError: There is no such file, it may not be read, or it is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL character or half a character") from None
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """What a regular file holds, or of a longer one its first ``limit`` + 1 bytes.

    Raises:
        OSError: As `open_regular`, or it cannot be read.
    """
    with open_regular(path) as file:
        return file.read(limit + 1)


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, and no regular file")
