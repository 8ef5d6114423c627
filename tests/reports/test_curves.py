"""Replies over time, and accuracy by their length."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.reports.html.curves import by_length, pace
from bundle.runs.predictions import Prediction

ROW = Prediction(
    task="t",
    split="val",
    subject="s",
    id=0,
    reply="A",
    answer="A",
    gold="A",
    correct=True,
    finish_reason="stop",
    decided_early=False,
    prompt_tokens=1,
    completion_tokens=1,
    latency_s=1.0,
    attempts=1,
    ended_at=1_700_000_000.0,
)


def rows_of(*spans: tuple[float, float]) -> list[Prediction]:
    """Replies that began and ended so many seconds after the first."""
    start = 1_700_000_000.0
    return [replace(ROW, id=n, ended_at=start + end, latency_s=end - begin) for n, (begin, end) in enumerate(spans)]


def test_two_at_once_for_ten_seconds() -> None:
    shown = pace(rows_of(*((n, n + 1) for n in range(10)), *((n, n + 1) for n in range(10))))
    assert shown is not None
    assert shown["width"] * len(shown["rate"]) == pytest.approx(10)
    assert all(value == pytest.approx(2, abs=0.01) for value in shown["in_flight"])


def test_the_time_between_the_parts_of_a_resumed_run_is_left_out() -> None:
    hour = 3600.0
    shown = pace(rows_of(*((n, n + 1) for n in range(10)), *((hour + n, hour + n + 1) for n in range(10))))
    assert shown is not None
    assert shown["breaks"] == [10]
    assert shown["width"] * len(shown["rate"]) == pytest.approx(20)
    assert all(value == pytest.approx(1, abs=0.01) for value in shown["in_flight"])


def test_rows_without_times_have_no_pace() -> None:
    assert pace([replace(ROW, id=n, ended_at=None) for n in range(100)]) is None
    assert pace([]) is None


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e3)), min_size=8, max_size=60))
def test_every_reply_and_every_second_in_flight_is_in_one_bin(spans: list[tuple[float, float]]) -> None:
    shown = pace(rows_of(*((begin, begin + length) for begin, length in spans)))
    if shown is None:
        assert sum(length for _, length in spans) == pytest.approx(0, abs=1e-3)
        return
    width = shown["width"]
    assert sum(shown["rate"]) * width == pytest.approx(len(spans), rel=0.02, abs=len(spans) * 0.001 * width)
    total = sum(length for _, length in spans)
    assert sum(shown["in_flight"]) * width == pytest.approx(total, rel=0.01, abs=0.01 * width * len(spans) + 0.01)


def test_long_replies_are_wrong_more_often_here() -> None:
    rows = [
        replace(ROW, id=n, completion_tokens=n, correct=n < 40, answer="A" if n < 40 else "B") for n in range(1, 81)
    ]
    shown = by_length(rows)
    assert shown is not None
    bins = shown["bins"]
    assert shown["unit"] == "tokens"
    assert sum(one["n"] for one in bins) == 80
    assert (bins[0]["accuracy"], bins[-1]["accuracy"]) == (100, 0)
    assert all(one["from"] <= one["accuracy"] <= one["to"] for one in bins)


def test_characters_count_where_a_reply_has_no_count_of_tokens() -> None:
    rows = [replace(ROW, id=n, completion_tokens=None, reply="A" * n) for n in range(1, 20)]
    shown = by_length(rows)
    assert shown is not None
    assert (shown["unit"], shown["bins"][0]["low"], shown["bins"][-1]["high"]) == ("characters", 1, 19)


def test_replies_of_one_length_show_nothing() -> None:
    assert by_length([replace(ROW, id=n) for n in range(20)]) is None
