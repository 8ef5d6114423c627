"""Work in threads that a run never waits for longer than it must."""

import threading

import pytest

from bundle.tasks.sources.bounded import each_bounded
from tests.patience import PATIENCE_S


def test_every_job_is_yielded_with_its_result() -> None:
    assert dict(each_bounded(len, ["a", "bb", "ccc"], workers=2, stall_s=PATIENCE_S)) == {"a": 1, "bb": 2, "ccc": 3}


def test_no_jobs_are_done_at_once() -> None:
    assert list(each_bounded(len, [], workers=2, stall_s=PATIENCE_S)) == []


def test_several_jobs_are_under_way_together() -> None:
    together = threading.Barrier(3, timeout=PATIENCE_S)
    done = each_bounded(lambda _: together.wait(), range(3), workers=3, stall_s=PATIENCE_S)
    assert sorted(place for _, place in done) == [0, 1, 2]


def test_the_first_failure_is_raised_and_no_further_job_is_begun() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def do(job: int) -> None:
        begun.append(job)
        if job == 0:
            raise ConnectionError("gone")
        failed.wait(PATIENCE_S)

    before = set(threading.enumerate())
    with pytest.raises(ConnectionError, match="gone"):
        list(each_bounded(do, range(100), workers=2, stall_s=PATIENCE_S))
    failed.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
    assert len(begun) <= 3  # the one that failed, and one more in each thread at the most


def test_jobs_that_stall_end_in_a_timeout() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"nothing arrived for 0\.05 seconds"):
        list(each_bounded(lambda _: never.wait(), range(3), workers=2, stall_s=0.05))
    never.set()
