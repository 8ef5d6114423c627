"""A regular expression of a task's own may be slow on a reply; it cannot hang a run."""

import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import AnswerError
from bundle.tasks.answers import Labelled, Pattern
from bundle.tasks.answers.pattern import SearchTimeoutError, search
from tests.tasks.opencompass_answers import COT_PATTERN

SLOW = [(r"(a+)+$", "a" * 40 + "b"), (r"(.*)*x([A-D])", "答案" * 100), (r"(?:(\w+)\s?)*!", "word " * 40)]


@pytest.mark.parametrize(("pattern", "reply"), SLOW)
def test_a_search_that_would_never_end_is_given_up_and_the_reply_is_neither_right_nor_wrong(
    pattern: str, reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.tasks.answers.pattern._LONGEST_SEARCH_S", 0.1)
    with pytest.raises(AnswerError) as caught:
        Pattern(pattern).extract(reply)
    assert "was still searching" in caught.value.message
    assert "only one way" in (caught.value.remedy or "")


def test_after_one_that_was_given_up_the_next_is_searched_as_ever() -> None:
    with pytest.raises(SearchTimeoutError):
        search(re.compile(*SLOW[0][:1]), SLOW[0][1], seconds=0.05)
    match = search(re.compile("b"), "abc", seconds=1)
    assert match is not None
    assert match.start() == 1


def test_a_search_that_ends_in_time_leaves_no_timer_behind() -> None:
    search(re.compile("b"), "abc", seconds=0.01)
    ends = time.process_time() + 0.05
    while time.process_time() < ends:
        pass


def test_in_another_thread_a_search_has_no_limit_and_finds_the_same() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(search(re.compile("b"), "abc", seconds=1)))
    thread.start()
    thread.join()
    assert isinstance(found[0], re.Match)


@given(
    st.text(st.sampled_from("ab1(答案)*+?[A-D]|\\^$."), max_size=12),
    st.text(st.sampled_from("ab1答案AB :\n"), max_size=20),
)
def test_what_is_found_is_what_python_finds(pattern: str, text: str) -> None:
    try:
        expression = re.compile(pattern)
    except re.error:
        return
    found, expected = search(expression, text, seconds=5), expression.search(text)
    assert (found and found.span()) == (expected and expected.span())


LABELLED = [
    (Labelled("答案", colon=":", ignore_case=True), COT_PATTERN),
    (Labelled("Answer", "AB1"), r"Answer\s*[:：]\W*([AB1])"),
    (Labelled("aa", "AKSZ", ":", ignore_case=True), r"(?i)aa\s*:\W*([AKSZ])"),
    (Labelled("x", "01", "："), r"x\s*：[\W]*([01])\W*"),
]
_PIECES = st.sampled_from(
    ["答案", "Answer", "aa", "AA", "x", ":", "：", " ", "\n", "*", "_", "A", "b", "1", "K", "ſ", "é", "\u3000"]
)


@pytest.mark.parametrize(("rule", "pattern"), LABELLED)
@given(reply=st.lists(_PIECES, max_size=14).map("".join))
def test_a_label_and_an_answer_are_found_where_a_plain_expression_finds_them(
    rule: Labelled, pattern: str, reply: str
) -> None:
    expected = re.compile(pattern).search(reply.strip())
    assert rule.extract(reply) == (expected[1] if expected else "")


@pytest.mark.parametrize("filler", [" ", "\n", "*", "\u3000", " *"])
def test_fillers_without_end_after_a_label_take_no_time_that_grows_with_their_square(filler: str) -> None:
    reply = "答案:" + filler * 200_000 + "x"
    started = time.process_time()
    assert LABELLED[0][0].extract(reply) == ""
    assert time.process_time() - started < 5
