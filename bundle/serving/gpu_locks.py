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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bundle.errors import ServerError
from bundle.serving.gpus import Gpu, ask_for_gpus, needed_mib, require_memory, select_gpus
from bundle.serving.missing_gpus import require_gpus
from bundle.system import guardian
from bundle.system.locks import Lock

if TYPE_CHECKING:
    from bundle.serving.engine import Job

_VARIABLE: Final = "BUNDLE_GPU_LOCKS"
_SHARED_BY_ALL: Final = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - nothing is written to the files
"""Not ``/dev/shm``, which systemd clears when a user logs out; nor TMPDIR, which batch systems set for each job."""
_LOCKS: Final = Path("/proc/locks")

_CHOOSING: Final = "choosing"
_CHOOSING_S: Final = 5.0
"""Others need milliseconds to choose."""
_BETWEEN_TRIES_S: Final = 0.005
_LOOK_AGAIN_S: Final = 1.0
_ENDING_S: Final = guardian.LONGEST_STOP + 10.0
"""How long the server of a killed run may need to end, and the driver to take its memory back."""


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


def reserve_gpus(job: "Job", engine: str, count: int, say: Callable[[str], None]) -> tuple[tuple[Gpu, ...], GpuLocks]:
    """Choose the GPUs to serve on and lock them: those with the most free memory, unless the user has named some.

    Raises UsageError if there are fewer than ``count``; ServerError if they are in use by other runs, or have too
    little free memory, and still are when the wait is over.
    """
    nvidia, began, said, is_fresh = job.machine.nvidia, time.monotonic(), None, False
    while True:
        try:
            gpus, locks = _reserve(require_gpus(nvidia, engine, job.gpu), job, count)
        except ServerError as error:
            is_ending = isinstance(error, _InUseError) and error.is_ending
            wait_s = max(job.wait_s, _ENDING_S if is_ending else 0.0)
            left = began + wait_s - time.monotonic()
            if left <= 0 and is_fresh:
                raise
            if left > 0 and error.message != said:
                said = error.message
                say(f"waiting for a GPU, at most {wait_s:.0f} s: {said}")
            time.sleep(max(0.0, min(_LOOK_AGAIN_S, left)))
            # What was said before may be from when another run's memory was not free yet.
            nvidia, is_fresh = ask_for_gpus(job.machine.limit_s), True
        else:
            for device, why in locks.unlocked.items():
                say(f"GPU {device} cannot be locked, so another run may use it too: {why}")
            return gpus, locks


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


class _InUseError(ServerError):
    """GPUs are held by other runs."""

    def __init__(self, held: Sequence[tuple[Gpu, Holder | None]]) -> None:
        self.is_ending = all(holder is None or holder.is_ending for _, holder in held)
        first, *others = _in_use(held)
        super().__init__(
            f"{first}.", remedy="Wait for it with --wait TIME, or choose another GPU with --gpu.", details=others
        )


def _in_use(held: Sequence[tuple[Gpu, Holder | None]]) -> list[str]:
    return [f"GPU {gpu.device} is in use by another run: {holder or 'it has just ended'}" for gpu, holder in held]


def _reserve(allowed: Sequence[Gpu], job: "Job", count: int) -> tuple[tuple[Gpu, ...], GpuLocks]:
    chosen = select_gpus(allowed, job.gpu, count)
    best_first = chosen if job.gpu is not None else select_gpus(allowed, None, len(allowed))
    locks = GpuLocks()
    taken: list[Gpu] = []
    held: list[Gpu] = []
    with _one_at_a_time():
        for gpu in best_first:
            if len(taken) < len(chosen):
                (taken if locks.take(gpu) else held).append(gpu)
    by_others = [(gpu, holder(gpu)) for gpu in held]
    if len(taken) < len(chosen):
        raise _InUseError(by_others)
    try:
        require_memory(taken, needed_mib(job.checkpoint.weights.size, len(taken)))
    except ServerError as error:
        details = [*error.details, *_in_use(by_others)]
        raise ServerError(error.message, remedy=error.remedy, details=details) from None
    return tuple(taken), locks


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
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
    """The process that took a lock on a file, as far as the kernel tells."""
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
