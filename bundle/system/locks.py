"""Locks on files and directories that other processes respect and can look at (``flock``)."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

_ATTEMPTS, _PAUSE_S = 5, 0.05
_STAND_IN = ".lock"


class Lock:
    """A lock on a file or directory, released at the latest when nothing refers to this object any more.

    NFS cannot lock directories; there a file ``.lock`` in the directory is locked in its place. Where nothing can be
    locked, as on some cluster file systems, taking it succeeds and protects nothing.

    Attributes:
        descriptor: What a process must inherit to hold the lock as well; None while it is not taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor: int | None = None

    def take(self, *, shared: bool = False) -> None:
        """Take the lock; ``shared``, others may hold it too, as long as they share it.

        Raises BlockingIOError if another process holds it; OSError if the path cannot be opened.
        """
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _take(self.descriptor, how) and self._path.is_dir():
                self._take_stand_in(how)
        except BaseException:
            self.release()
            raise

    def _take_stand_in(self, how: int) -> None:
        try:
            stand_in = os.open(self._path / _STAND_IN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return  # a directory that cannot be written needs protection least
        self.release()
        self.descriptor = stand_in
        _take(stand_in, how)

    def release(self) -> None:
        """Release the lock, if it was taken."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __del__(self) -> None:
        self.release()

    def remove_stand_in(self) -> None:
        """Remove the file that stands in for a directory, before the directory itself is removed."""
        with contextlib.suppress(OSError):
            (self._path / _STAND_IN).unlink(missing_ok=True)

    def is_held(self, *, shared_too: bool = False) -> bool | None:
        """Whether a process holds the lock; None where that cannot be determined. What does not exist is not held.

        Looking takes the lock for an instant, which `take` allows for. Holders that share it count if ``shared_too``.
        """
        how = fcntl.LOCK_EX if shared_too else fcntl.LOCK_SH
        seen = _look(self._path, how)
        # Where a shared lock on a directory is possible an exclusive one need not be: whoever took it may have had to
        # lock the file in its place.
        stand_in = self._path / _STAND_IN
        return seen if seen or self._path.is_symlink() or not stand_in.exists() else _look(stand_in, how)


def _take(descriptor: int, how: int) -> bool:
    """Lock what is open; False where its file system does not support that."""
    attempt = 1
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt > _ATTEMPTS:
                raise
            attempt += 1
            time.sleep(_PAUSE_S)  # it may be a process that only looks
        except OSError:
            return False
        else:
            return True


def _look(path: Path, how: int) -> bool | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
