"""The line of a terminal that tells how far a run is."""

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from bundle.reports.screen.live import LiveLine
from bundle.reports.screen.progress import Progress
from bundle.runs.predictions import Prediction

ROW = Prediction(
    *("ceval_gen", "val", "law", 0),
    reply="A",
    answer="A",
    gold="A",
    correct=True,
    finish_reason="stop",
    decided_early=False,
    prompt_tokens=1,
    completion_tokens=1,
    latency_s=0.1,
    attempts=1,
)


def counted(
    total: int = 1346, *, right: int = 300, wrong: int = 120, failed: int = 2, learned: float | None = None
) -> Progress:
    progress = Progress(total, lambda: learned, in_flight=lambda: 64)
    for number in range(right + wrong + failed):
        if number >= right + wrong:
            one = replace(ROW, reply=None, answer=None, correct=None, attempts=2, error="HTTP 500")
        else:
            one = replace(ROW, correct=number < right)
        progress.count(replace(one, id=number))
    return progress


def test_answers_whose_gold_is_secret_are_neither_right_nor_wrong() -> None:
    progress = counted(right=3, wrong=1, failed=0)
    for number in range(10):
        secret = replace(ROW, split="test", id=number, gold="", correct=None)
        progress.count(secret)

    assert progress.done == 14
    assert "75.0 % of 4 correct" in progress.line()


def test_a_question_that_is_asked_again_counts_once() -> None:
    progress = counted(right=1, wrong=0, failed=0)

    progress.count(replace(ROW, reply="B", answer="B", correct=False))

    assert "0.0 % of 1 correct" in [text for _, text in progress.labels()]


def shown(line: LiveLine, width: int) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=True)
    console.print(line)
    return stream.getvalue()


@pytest.fixture
def line() -> LiveLine:
    return LiveLine(Console(file=StringIO()))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_it_is_one_line_of_any_width_and_says_how_many_are_done(line: LiveLine, width: int) -> None:
    line._progress = counted()
    (text,) = shown(line, width).splitlines()
    assert len(text + "^C") < max(width, 21), "what a terminal adds at Ctrl-C makes it two"
    assert "422/1,346" in text


def test_80_columns_hold_count_score_rate_time_left_and_failures(line: LiveLine) -> None:
    line._progress = counted()
    text = shown(line, 80)
    for label in ("422/1,346", "71.4 % of 420 correct", "/s", "left", "2 failed"):
        assert label in text


def test_what_is_not_done_has_time_left() -> None:
    progress = counted(423)
    progress._started -= 1
    assert "1 s left" in progress.line()


def test_a_wide_terminal_has_room_for_a_bar_what_is_in_flight_and_retries(line: LiveLine) -> None:
    line._progress = counted()
    text = shown(line, 160)
    assert text.count("━") == 24
    assert "64 in flight" in text
    assert "2 retries" in text


def test_a_rate_limit_is_shown_with_the_time_that_it_leaves(line: LiveLine) -> None:
    """924 questions at 20 a minute take 46 minutes, however fast the first ones were answered."""
    line._progress = counted(learned=20 / 60)
    text = shown(line, 160)
    assert "limit 20/min" in text
    assert "46 min left" in text
    assert re.search(
        r"the server allows about 20 a minute, 46 min left \(until about \d\d:\d\d\)", line._progress.line()
    )


def test_what_a_server_does_is_shortened_to_fit(line: LiveLine) -> None:
    line._activity = "starting lmdeploy: loading weights 37 %, and " + "x" * 100
    (text,) = shown(line, 80).splitlines()
    assert "starting lmdeploy: loading weights 37 %, and …" in text
    assert len(text) < 80
    assert text.endswith(" s")
