"""What counts as the answer in a reply, and that reading it piece by piece changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.tasks.answers import ANSWER_RULES, extract


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("A", "A"),
        ("答案是B。", "B"),
        ("The answer is A", "T"),
        ("b", ""),
        ("", ""),
        ("选项 Ｃ", "Ｃ"),  # full-width letters are upper-case letters too
        ("\n\n D", "D"),
        ("ÉA", "É"),
    ],
)
def test_the_first_upper_case_character_is_the_answer(reply: str, answer: str) -> None:
    assert extract("first_capital", reply) == answer


@pytest.mark.parametrize("rule", sorted(ANSWER_RULES))
@given(pieces=st.lists(st.text(), max_size=12))
def test_pieces_give_the_answer_of_the_whole(rule: str, pieces: list[str]) -> None:
    reader = ANSWER_RULES[rule]()
    for piece in pieces:
        reader.feed(piece)
    assert reader.end() == extract(rule, "".join(pieces))


@pytest.mark.parametrize("rule", sorted(ANSWER_RULES))
@given(pieces=st.lists(st.text(), max_size=12))
def test_an_answer_once_said_never_changes(rule: str, pieces: list[str]) -> None:
    reader = ANSWER_RULES[rule]()
    said = None
    for piece in pieces:
        now = reader.feed(piece)
        assert said is None or now == said
        said = now
    if said is not None:
        assert reader.end() == said
