"""Locks that other processes can look at."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.system.locks import Lock


@pytest.fixture(params=["local", "nfs"])
def directory(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, also where only shared locks on directories are possible, as on NFS: a lock for one process alone
    needs a descriptor open for writing."""

    def flock(descriptor: int, how: int, real: Callable[[int, int], None] = fcntl.flock) -> None:
        if how & fcntl.LOCK_EX and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, how)

    if request.param == "nfs":
        monkeypatch.setattr(fcntl, "flock", flock)
    return tmp_path


def test_a_lock_that_was_taken_is_seen_until_it_is_released(directory: Path) -> None:
    lock = Lock(directory)
    assert Lock(directory).is_held() is False
    lock.take()
    assert Lock(directory).is_held() is True
    with pytest.raises(BlockingIOError):
        Lock(directory).take()
    lock.release()
    assert Lock(directory).is_held() is False
    Lock(directory).take()


def test_a_shared_lock_does_not_count_unless_asked_for(tmp_path: Path) -> None:
    one, other = Lock(tmp_path), Lock(tmp_path)
    one.take(shared=True)
    other.take(shared=True)
    assert Lock(tmp_path).is_held() is False
    assert Lock(tmp_path).is_held(shared_too=True) is True


def test_what_does_not_exist_is_not_held(tmp_path: Path) -> None:
    assert Lock(tmp_path / "nothing").is_held() is False


def test_where_nothing_can_be_locked_it_is_not_known_whether_anything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    Lock(tmp_path).take()

    assert Lock(tmp_path).is_held() is None
