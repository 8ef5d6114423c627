"""A GPU belongs to one run: locks on GPUs that every run of this machine respects, whoever started it.

A lock is a file named after the GPU's UUID, in a directory that all users can write to. It is held from the choice of
the GPU until the last process that may use its memory is gone: a server's guardian holds it, too, so that it outlives a
killed run for as long as the server does. Who holds it is read from ``/proc/locks``; the files are empty.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.serving.gpus import Gpu
from bundle.system import guardian
from bundle.system.locks import Lock

_VARIABLE: Final = "BUNDLE_GPU_LOCKS"
_SHARED_BY_ALL: Final = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - nothing is written to the files
"""Not ``/dev/shm``, which systemd clears when a user logs out; nor TMPDIR, which batch systems set for each job."""
_LOCKS: Final = Path("/proc/locks")

_CHOOSING: Final = "choosing"
_CHOOSING_S: Final = 5.0
"""Others need milliseconds to choose."""
_BETWEEN_TRIES_S: Final = 0.005


class GpuLocks:
    """The locks on the GPUs of one server.

    Attributes:
        unlocked: The GPUs that could not be locked, and why; runs that use them do not know of each other.
    """

    def __init__(self) -> None:
        self._locks: list[Lock] = []
        self.unlocked: dict[str, str] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a process must inherit to hold the locks as well."""
        return tuple(lock.descriptor for lock in self._locks if lock.descriptor is not None)

    def release(self) -> None:
        for lock in self._locks:
            lock.release()

    def take(self, gpu: Gpu) -> bool:
        """Lock a GPU; False if another run holds it."""
        try:
            self._locks.append(_lock(gpu.uuid))
        except BlockingIOError:
            return False
        except OSError as error:
            self.unlocked[gpu.device] = f"{_path(gpu.uuid)}: {error.strerror}"
        return True


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that holds a GPU.

    Attributes:
        pid: Its process; None if that is hidden from here.
        is_ending: Whether it has ended, and its server has not yet.
    """

    pid: int | None
    is_ending: bool

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that is hidden from here (another container)"
        if self.is_ending:
            return f"process {self.pid} has ended, and its server is about to"
        from bundle.system.processes import describe  # imported late: psutil takes 20 ms, and runs seldom meet

        return describe(self.pid)


def holder(gpu: Gpu) -> Holder | None:
    """The run that holds a GPU; None if none does."""
    path = _path(gpu.uuid)
    if not Lock(path).is_held():
        return None
    pid = _locking_pid(path)
    process = None if pid is None else guardian.process_table().get(pid)
    return Holder(pid, is_ending=pid is not None and (process is None or process.zombie))


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no other run choose meanwhile, so that of two that need several GPUs not each gets some of them."""
    choosing, deadline = None, time.monotonic() + _CHOOSING_S
    with contextlib.suppress(OSError):  # GPUs can't be locked either, then
        while choosing is None and time.monotonic() < deadline:
            try:
                choosing = _lock(_CHOOSING)
            except BlockingIOError:
                time.sleep(_BETWEEN_TRIES_S)
    try:
        yield
    finally:
        if choosing is not None:
            choosing.release()


def _lock(name: str) -> Lock:
    """Take the lock of this name. Raises BlockingIOError if another process holds it; OSError if there can be none."""
    path = _path(name)
    while True:
        _create(path)
        lock = Lock(path)
        try:
            lock.take()
        except FileNotFoundError:
            continue  # it was cleaned away as a temporary file
        assert lock.descriptor is not None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.descriptor), path.lstat()):
                return lock
        lock.release()


def _create(path: Path) -> None:
    """Make a file that every user may open. Raises OSError if that is impossible, or something else is in its place."""
    if os.environ.get(_VARIABLE):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Where the directory is sticky, Linux may forbid O_CREAT for a file of another user.
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o444)  # whatever the umask
        os.close(descriptor)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(0, "it is not a regular file")


def _path(name: str) -> Path:
    if chosen := os.environ.get(_VARIABLE):
        place = Path(chosen)
    else:
        # The same for every user, whatever this one may write to.
        for_all = [one for one in _SHARED_BY_ALL if one.is_dir() and one.stat().st_mode & stat.S_IWOTH]
        place = (for_all or _SHARED_BY_ALL)[0]
    return place / f"bundle-gpu-{re.sub(r'[^A-Za-z0-9-]', '-', name)}.lock"


def _locking_pid(path: Path) -> int | None:
    """The process that took a lock on a file, as far as the kernel shows it."""
    try:
        there = path.stat()
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    found = {
        fields[5]: int(fields[4])
        for fields in map(str.split, lines)
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[3] == "WRITE" and fields[4].isdigit()
        if fields[5].rpartition(":")[2] == str(there.st_ino)
    }
    exact = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}"
    # On overlay and btrfs a file shows another device than its file system's.
    return found.get(exact) or (next(iter(found.values())) if len(found) == 1 else None)
