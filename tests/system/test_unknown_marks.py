"""Marks of thinking that are not known, and ordinary text that only looks like them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.system.unknown_marks import closing_mark, opening_mark


@pytest.mark.parametrize(
    "mark",
    [
        "</reflection>",
        "</ scratchpad >",
        "</mm:think>",
        "<|end_of_thought|>",
        "<|END_THINKING|>",
        "<|/thinking|>",
        "<|thought_end|>",
        "<channel|>",
        "[/REASON]",
        "【/思考】",
        "【思考结束】",
        "◁/plan▷",
        "<answer>",
        "<final_answer>",
        "<|begin_of_solution|>",
    ],
)
@pytest.mark.parametrize("form", ["A?\n{}\n\nB", "A? {}\nB", "A?\r\n{}B"])
def test_a_mark_that_was_never_opened_and_has_text_before_and_after_may_end_thinking(mark: str, form: str) -> None:
    found = closing_mark(form.format(mark))
    assert found is not None
    assert found[0] == mark


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        "第一行</br>\n第二行",
        "A</div>\nB</sub>\n</table>\nC",
        "List<int> 和 Map<String, Integer>\n都可以",
        "<catalog>\n<item>1</item>\n</catalog>\n所以选 B",
        "<catalog id='1'>\n</catalog>\nB",
        "B，标签 </reflection> 用于结束",
        "$x</y$ 且 a<b|c>d\nB",
        "\\frac{1}{2} [A]\n[/b]\nB",
        "【答案】B【解析】略\n【点评】",
        "B<|im_end|>\n<|im_start|>user\nA",
        "B\n<|end_of_text|>\nA",
        "B\n<|endoftext|>\nA",
        "B\n</reflection>\n",
        "</reflection>\nB",
        "<answer>B</answer>\n完",
        "B</answer>\n完",
    ],
)
def test_ordinary_text_has_none(reply: str) -> None:
    assert closing_mark(reply) is None


@given(st.text(alphabet="</|>[]【】◁▷abA思考 \n"))
def test_a_mark_stands_in_the_text_with_more_on_both_sides(reply: str) -> None:
    if (found := closing_mark(reply)) is not None:
        assert reply[: found.start()].strip()
        assert reply[found.end() :].strip()


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("<details open><summary>Example</summary>", None),
        ("*Thinking...*\n\nA?\n\nB", "*Thinking...*"),
        ("**Thinking:** A, as it", None),
        ("<plan>", "<plan>"),
        ("&lt;think&gt;A?", "&lt;think&gt;"),
        ("＜think＞A?", "＜think＞"),
        ("<think\n>A?", "<think\n>"),
        ("[think]", None),
    ],
)
def test_thinking_that_a_gateway_folds_away_begins_with_a_mark(reply: str, mark: str | None) -> None:
    assert opening_mark(reply) == mark
