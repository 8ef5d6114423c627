"""Replies over time, and accuracy by their length."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.reports.html.curves import Asking, by_length
from bundle.runs.files import GPUS
from bundle.runs.gpu_load import GpuLoad, append_gpu_loads, read_gpu_loads, recent_utilization
from bundle.runs.predictions import Prediction

START = 1_700_000_000.0
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
    return [replace(ROW, id=n, ended_at=START + end, latency_s=end - begin) for n, (begin, end) in enumerate(spans)]


def pace_of(rows: list[Prediction], *, going_on: bool = False) -> dict[str, Any] | None:
    return Asking(rows, going_on=going_on).pace()


def load(at: float, utilization: int | None, used_mib: int | None = None, gpu: int = 0) -> GpuLoad:
    """What a GPU did so many seconds after the first question."""
    return GpuLoad(at=START + at, gpu=gpu, utilization=utilization, used_mib=used_mib, total_mib=81920)


def test_two_at_once_for_ten_seconds() -> None:
    shown = pace_of(rows_of(*((n, n + 1) for n in range(10)), *((n, n + 1) for n in range(10))))
    assert shown is not None
    assert shown["width"] * len(shown["rate"]) == pytest.approx(10)
    assert all(value == pytest.approx(2, abs=0.01) for value in shown["in_flight"])


def test_the_time_between_the_parts_of_a_resumed_run_is_left_out() -> None:
    hour = 3600.0
    shown = pace_of(rows_of(*((n, n + 1) for n in range(10)), *((hour + n, hour + n + 1) for n in range(10))))
    assert shown is not None
    assert shown["breaks"] == [10]
    assert shown["width"] * len(shown["rate"]) == pytest.approx(20)
    assert all(value == pytest.approx(1, abs=0.01) for value in shown["in_flight"])


def test_rows_without_times_have_no_pace() -> None:
    assert pace_of([replace(ROW, id=n, ended_at=None) for n in range(100)]) is None
    assert pace_of([]) is None


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e3)), min_size=8, max_size=60))
def test_every_reply_and_every_second_in_flight_is_in_one_bin(spans: list[tuple[float, float]]) -> None:
    shown = pace_of(rows_of(*((begin, begin + length) for begin, length in spans)))
    if shown is None:
        assert sum(length for _, length in spans) == pytest.approx(0, abs=1e-3)
        return
    width = shown["width"]
    assert sum(shown["rate"]) * width == pytest.approx(len(spans), rel=0.02, abs=len(spans) * 0.001 * width)
    total = sum(length for _, length in spans)
    assert sum(shown["in_flight"]) * width == pytest.approx(total, rel=0.01, abs=0.01 * width * len(spans) + 0.01)


def test_while_a_run_goes_on_it_is_not_known_how_many_wait_now() -> None:
    rows = rows_of(*((n / 10, n / 10 + 2) for n in range(200)))
    shown, ended = pace_of(rows, going_on=True), pace_of(rows)
    assert shown is not None
    assert ended is not None
    width, waiting = shown["width"], shown["in_flight"]
    known = [number for number in waiting if number is not None]
    assert waiting[len(known) :] == [None] * (len(waiting) - len(known))
    assert ended["in_flight"][: len(known)] == known
    assert len(known) * width == pytest.approx(21.9 - 2, abs=width)
    assert shown["rate"] == ended["rate"]


def test_gpus_are_shown_where_questions_were_asked_and_not_in_breaks() -> None:
    hour = 3600.0
    spans = [*((n, n + 1) for n in range(10)), *((hour + n, hour + n + 1) for n in range(10))]
    loads = [load(-5, 99), load(2, 40, 40960), load(6, 60, 40960), load(hour / 2, 1), load(hour + 4, 80, 61440)]
    (shown,) = Asking(rows_of(*spans)).gpus([*loads, load(hour + 99, 99)])
    assert shown["utilization"] == [(2, 40), (6, 60), (14, 80)]
    assert (shown["mean"], shown["most"], shown["memory"]) == (60, 60, 80)
    assert shown["used"] == [(2, 40), (6, 40), (14, 60)]


def test_what_a_driver_does_not_say_is_no_number_and_several_gpus_are_told_apart() -> None:
    rows = rows_of(*((n, n + 1) for n in range(10)))
    first, second = Asking(rows).gpus([load(1, None, 1024), load(2, 50, gpu=1), load(3, None, None, gpu=2)])
    assert (first["gpu"], first["utilization"], first["mean"], first["most"]) == (0, [], None, 1)
    assert (second["gpu"], second["mean"], second["used"], second["most"]) == (1, 50, [], None)


def test_a_long_run_has_no_more_points_than_can_be_seen() -> None:
    rows = rows_of(*((n, n + 2) for n in range(10_000)))
    (shown,) = Asking(rows).gpus([load(n, n % 2 * 100) for n in range(10_000)])
    assert len(shown["utilization"]) == 120
    assert all(value == pytest.approx(50, abs=2) for _, value in shown["utilization"])


def test_rows_of_gpus_are_read_back_without_damaged_ones(tmp_path: Path) -> None:
    rows = [load(1, 93, 1), load(2, None, 2)]
    append_gpu_loads(tmp_path, rows[1:])
    append_gpu_loads(tmp_path, rows[:1])
    with (tmp_path / GPUS).open("a") as file:
        file.write('{"at": 1.0, "gpu": 0, "utilization": 101, "used_mib": 1, "total_mib": 1}\nnone\n{"at": 2')
    assert read_gpu_loads(tmp_path) == rows
    assert read_gpu_loads(tmp_path / "none") == []
    append_gpu_loads(tmp_path / "none", rows)  # nothing depends on it
    assert recent_utilization(tmp_path) is None


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
