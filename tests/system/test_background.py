"""Work in a thread that is waited for no longer than it makes progress."""

import threading

import pytest

from bundle.system.background import bounded
from tests.patience import PATIENCE_S


def test_what_the_work_returns_is_returned_and_its_lines_are_said_in_order() -> None:
    said: list[str] = []

    def work(report: object) -> int:
        assert callable(report)
        for line in ("one", "", "two"):
            report(line)
        return 3

    assert bounded(work, stall_s=PATIENCE_S, say=said.append) == 3
    assert said == ["one", "two"]


def test_what_the_work_raises_is_raised() -> None:
    def work(_: object) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        bounded(work, stall_s=PATIENCE_S)


def test_work_that_stalls_ends_in_a_timeout_and_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no progress for 0\.05 seconds"):
        bounded(lambda _: never.wait(), stall_s=0.05)
    never.set()
