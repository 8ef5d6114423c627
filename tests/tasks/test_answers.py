"""What counts as the answer in a reply, and that reading it piece by piece changes nothing."""

import json
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import ConfigError
from bundle.tasks.answers import AllOptions, AnswerRule, FirstCapital, FirstOption, Labelled, Pattern
from bundle.tasks.answers.first_option import searches
from bundle.tasks.catalog import find_task
from tests.tasks.opencompass_answers import COT_PATTERN, WORDS

COT = Labelled("答案", colon=":", ignore_case=True)
"""The rule of ``cmmlu_0shot_cot_gen``, whose expression in OpenCompass is `COT_PATTERN`."""

RULES: dict[str, AnswerRule] = {
    "first_capital": FirstCapital(),
    "first_option": FirstOption(),
    "first_option of other options": FirstOption("12AE"),
    "labelled": COT,
    "labelled of another kind": Labelled("Answer", "AB1"),
    "labelled whose label can overlap itself": Labelled("aa", string.ascii_uppercase, ":", ignore_case=True),
    "pattern that needs the whole reply": Pattern(r"([A-D])\W*$"),
    "pattern that is read as an option": Pattern(r"(?i)答案\W*(\w)", "ABCD"),
    "all options": AllOptions(),
    "all options where a pattern says": AllOptions("ABCD", r"答案\s*[:：是]\s*([A-D]+)"),
    "pattern whose group may be left out": Pattern(r"答案(是[A-D])?"),
}

# Replies out of what the rules look for, whole or in parts, and out of anything.
_ANSWERS = ("答案是A", "答案 B", "答案：C", "答案: D", "选B", "故A", "The answer is C", "Answer: A", "aa: C", "A")
_PIECES = st.lists(
    st.sampled_from(_ANSWERS) | st.sampled_from(WORDS) | st.sampled_from(("aa", "a:", "：")) | st.text(max_size=3),
    max_size=14,
)
REPLIES = _PIECES.map("".join)


@pytest.mark.parametrize(
    ("rule", "reply", "answer"),
    [
        (FirstCapital(), "A", "A"),
        (FirstCapital(), "答案是B。", "B"),
        (FirstCapital(), "The answer is A", "T"),
        (FirstCapital(), "b", ""),
        (FirstCapital(), "", ""),
        (FirstCapital(), "选项 Ｃ", "Ｃ"),  # full-width letters are upper-case letters too
        (FirstCapital(), "\n\n D", "D"),
        (FirstCapital(), "ÉA", "É"),
        (FirstOption(), "因为…，所以答案是 B。而 A 是错的", "B"),
        (FirstOption(), "A 不对。答案：C", "C"),
        (FirstOption(), "故A只有B对", "A"),  # a comma is missing between two patterns there
        (FirstOption(), "Answer: b", "A"),  # what was matched has an A in it
        (FirstOption(), "The correct answer is: All but one, boxed{C}", "A"),
        (FirstOption(), "10 月 C 或 B", "B"),  # whatever comes after a 1, and the first option by order
        (FirstOption(), "D", "D"),
        (FirstOption(), "E", ""),
        (FirstOption("ABCDE"), "选E", "E"),
        (COT, "思考……\n答案: C", "C"),
        (COT, "**答案:** B", "B"),
        (COT, "答案: b", "b"),  # which is not B, there as here
        (COT, "答案：B", ""),  # a full-width colon is none
        (COT, "答案: A。不对，答案: B", "A"),
        (Labelled("答案"), "答案：**B**", "B"),
        (Labelled("Answer"), "answer: B", ""),
        (Labelled("Answer", "XY"), "Answer: A\nAnswer: X", "X"),
        (Pattern(COT_PATTERN), "答案: b", "b"),
        (Pattern(r"([A-D])$"), "C \n", "C"),  # white space around a reply is not seen
    ],
)
def test_the_answer_in_a_reply(rule: AnswerRule, reply: str, answer: str) -> None:
    assert rule.extract(reply) == answer


def test_answers_are_those_opencompass_s_own_functions_find() -> None:
    rules = {"first_capital": FirstCapital(), "first_option": FirstOption(), "pattern": COT}
    rows = json.loads(Path(__file__).with_name("opencompass_answers.json").read_text(encoding="utf-8"))
    assert len(rows) > 500
    for row in rows:
        assert {name: rule.extract(row["reply"]) for name, rule in rules.items()} == {
            name: row[name] for name in rules
        }, row["reply"]


@pytest.mark.parametrize("name", RULES)
@given(reply=REPLIES, data=st.data())
def test_pieces_give_the_answer_of_the_whole_and_what_was_said_never_changes(
    name: str, reply: str, data: st.DataObject
) -> None:
    rule = RULES[name]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(reply)), max_size=len(reply) + 1), label="cuts"))
    reader, said = rule.reader(), None
    for begin, end in zip([0, *cuts], [*cuts, len(reply)], strict=True):
        now = reader.feed(reply[begin:end])
        assert said is None or now == said
        said = now
    assert said is None or said == rule.extract(reply)
    assert reader.end() == rule.extract(reply)


@pytest.mark.parametrize("name", RULES)
@given(reply=REPLIES, more=REPLIES)
def test_an_answer_that_was_said_is_the_answer_of_every_longer_reply(name: str, reply: str, more: str) -> None:
    rule = RULES[name]
    said = rule.reader().feed(reply)
    assert said is None or said == rule.extract(reply + more)


@pytest.mark.parametrize(
    ("rule", "reply", "said"),
    [
        (FirstCapital(), "答案是B", "B"),
        (FirstOption(), "答案是B", "B"),
        (FirstOption(), "答案 \n B", "B"),
        (FirstOption(), "答案：B", None),  # "答案是A" may follow, and goes first
        (FirstOption(), "选B", None),
        (COT, "答案: **B", "B"),
        (COT, "答案: **", None),
        (Labelled("ANSWER"), "ANSWER: B", "B"),
        (Pattern(r"ANSWER:\s*([A-D])"), "ANSWER: B", None),  # a longer reply may match otherwise
        (Pattern(r"(B)"), "B", None),
        (Pattern(r"A:\s*([A-D])|B"), "A: A", None),
    ],
)
def test_an_answer_is_said_at_once_where_nothing_can_change_it_and_not_before(
    rule: AnswerRule, reply: str, said: str | None
) -> None:
    reader = rule.reader()
    assert [reader.feed(character) for character in reply][-1] == said


@settings(max_examples=200)
@given(REPLIES.map(str.strip))
def test_what_is_looked_for_in_another_way_than_opencompass_does_is_found_the_same(text: str) -> None:
    expressions = [
        *(rf"{label}\s?(\S+)(?:。|$)" for label in ("答案是", "答案应该是", "答案为")),
        *(rf"[Tt]he correct {what} is:?.*?boxed{{([ABCD])}}" for what in ("answer", "option", "answer option")),
    ]
    found = [search(text) for search in searches("ABCD")]
    there = [match and match[0] for match in (re.search(one, text, re.DOTALL) for one in expressions)]
    assert found[31:34] + found[39:42] == there


@pytest.mark.parametrize("rule", [FirstOption(), COT, AllOptions()], ids=lambda rule: rule.name)
@pytest.mark.parametrize(
    "refrain",
    [
        "答案是",
        "答案是 ",
        "答案: ",
        "The correct answer is ",
        "the answer is  ",
        " ",
        "1",
        "答案。",
        "A、",
        "A and ",
        "选(",
        "(A",
        "和",
    ],
)
def test_a_model_that_repeats_itself_costs_no_more_time_than_its_reply_is_long(rule: AnswerRule, refrain: str) -> None:
    reply = refrain * (100_000 // len(refrain)) + " 完"
    began = time.process_time()
    rule.extract(reply)
    reader = rule.reader()
    for begin in range(0, len(reply), 4):
        reader.feed(reply[begin : begin + 4])
    assert reader.end() == rule.extract(reply)
    assert time.process_time() - began < 20  # where time grows with the square of the length it is half an hour


@pytest.mark.parametrize(
    ("rule", "can", "cannot"),
    [
        (FirstCapital(), ["A", "Z", "Ａ"], ["a", "AB", "", "甲"]),
        (FirstOption("AB"), ["A", "B"], ["C", "AB", ""]),
        (Labelled("答案", "AB"), ["A", "B"], ["C", "AB", "", "a"]),
        (AllOptions("ABC"), ["A", "AC", "ABC"], ["CA", "AA", "D", ""]),
        (Pattern("(.*)"), ["甲", "any text"], []),
    ],
)
def test_a_rule_tells_which_answers_it_can_find(rule: AnswerRule, can: list[str], cannot: list[str]) -> None:
    assert [rule.can_find(answer) for answer in can + cannot] == [True] * len(can) + [False] * len(cannot)


@pytest.mark.parametrize("options", ["", "A-D", "AA", "甲乙", "A B", "^A"])
def test_options_must_be_different_letters_or_digits(options: str) -> None:
    with pytest.raises(ConfigError, match="options"):
        FirstOption(options)
    with pytest.raises(ConfigError, match="options"):
        Labelled("答案", options)


@pytest.mark.parametrize(
    ("label", "colon", "fault"), [("", ":", "label"), ("答 案", ":", "label"), ("答案", "=", "colon")]
)
def test_a_label_is_a_word_and_a_colon_a_colon(label: str, colon: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Labelled(label, colon=colon)


@pytest.mark.parametrize(
    ("pattern", "fault"), [("(A", "not a valid regular"), ("A", "no group"), ("(A)++*", "not a valid")]
)
def test_a_pattern_must_be_a_regular_expression_with_a_group(pattern: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Pattern(pattern)


def test_the_tasks_have_opencompass_s_rules() -> None:
    assert find_task("ceval_gen").answer_rule == FirstCapital()
    assert find_task("ceval_zero_shot_gen").answer_rule == FirstOption("ABCD")
    assert find_task("cmmlu_0shot_cot_gen").answer_rule == COT
