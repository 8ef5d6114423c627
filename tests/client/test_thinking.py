"""Telling thinking from text, however the reply is cut into pieces."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client._thinking import ThinkingMarks, ThinkingSplitter, split_thinking

REPLIES = st.lists(
    st.sampled_from(["<think>", "</think>", "<think", "<", "</", "think>", ">", " ", "\n", "A", "答案"]), max_size=12
).map("".join)
HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|", "final", "analysis", "assistant", "A", "答案"]
TAGS = ["<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>", "<", "[", " ", "A", "答案"]
FOLDS = ["```", "~~~", "thinking", "python", "> ", "*Thinking...*", "**Reasoning**", ":", "<details>", "</details>"]
FOLDS += ["<summary>Thoughts</summary>", "<think>", "</think>", "\n", "\r\n", " ", "A", "思考"]
FOLDED = st.lists(st.sampled_from(FOLDS), max_size=12).map("".join)
MARKED = st.lists(st.sampled_from([*TAGS, *HARMONY]), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("reply", "text", "thinking"),
    [
        ("B", "B", ""),
        (" B\n", " B\n", ""),
        ("<think>A?</think>\n\nB", "B", "A?"),
        ("A?\n</think>\n\nB", "B", "A?\n"),
        ("<think>A?", "", "A?"),
        ("B <think>A?", "B ", "A?"),
        (" <think>A?</think> B", "B", "A?"),
        (" B<think>A?</think> C", " B C", "A?"),
        ("B<think>A?</think>C", "BC", "A?"),
        ("<think>A?</think>C</think>B", "B", "A?C"),
        ("<think>1</think><think>2</think>B", "B", "12"),
        ("<think>a<think>b</think>c", "c", "ab"),
        ("<think></think>", "", ""),
        ("x < y, </ think>", "x < y, </ think>", ""),
        ("B <thin", "B <thin", ""),
        ("<thinking>A?</thinking>B", "B", "A?"),
        ("<thought>A?</thought>B", "B", "A?"),
        ("<THINK>A?</THINK>B", "B", "A?"),
        ("<seed:think>A?</seed:think>\n\nB", "B", "A?"),
        ("<reasoning>A?</reasoning>B", "B", "A?"),
        ("[THINK]A?[/THINK]B", "B", "A?"),
        ("◁think▷A?◁/think▷B", "B", "A?"),
        ("A?</seed:think>B", "B", "A?"),
        ("<think>about </reasoning> marks</think>B", "B", "about </reasoning> marks"),
        ("<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>", "B", "A?"),
        ("<|channel|>final<|message|>B", "B", ""),
        ("<|start|>assistant<|message|>B", "B", ""),
        ("<|channel|>analysis<|message|>A?", "", "A?"),
        ("analysisA?assistantfinalB", "B", "A?"),
        ("analysis of A", "analysis of A", ""),
        ("analysis <think>A</think>B", "analysis B", "A"),
        ("anal", "anal", ""),
        ("[A", "[A", ""),
        ("[T", "[T", ""),
    ],
)
def test_a_replys_text_and_thinking(reply: str, text: str, thinking: str) -> None:
    split = split_thinking(reply)
    assert (split.text, split.thinking) == (text, thinking)


@pytest.mark.parametrize(
    ("reply", "text", "thinking"),
    [
        ("```thinking\nA?\n```\nB", "B", "A?\n"),
        ("```Think\r\nA?\r\n```\r\nB", "B", "A?\r\n"),
        ("~~~ thoughts\nA?\n~~~\nB", "B", "A?\n"),
        ("```思考过程\nA?\n```\nB", "B", "A?\n"),
        ("```thinking\nA?```\nB", "B", "A?"),
        ("```thinking\nA?\n```python\nB\n```\nC?\n```\nD", "D", "A?\n```python\nB\n```\nC?\n"),
        ("```thinking\nA?\n```", "", "A?\n"),
        ("```thinking\nA?", "", "A?"),
        ("```thinking\nA?\n```\n```thinking\nB?\n```\nC", "C", "A?\nB?\n"),
        ("> *Thinking...*\n> A?\n\nB", "B", "*Thinking...*\nA?\n\n"),
        ("> **Reasoning**\n> A?\n>\n> C?\nB", "B", "**Reasoning**\nA?\n\nC?\n"),
        ("> **Thought for 3 seconds**\n> A?\nB", "B", "**Thought for 3 seconds**\nA?\n"),
        ("> 💭 Thinking process: A?\n> C?\nB", "B", "💭 Thinking process: A?\nC?\n"),
        ("> 已深度思考（用时 8 秒）\n> A?\n\nB", "B", "已深度思考（用时 8 秒）\nA?\n\n"),
        ("*Thinking...*\n\n> A?\n\nB", "B", "*Thinking...*\n\nA?\n\n"),
        ("### 思考\n> A?\nB", "B", "### 思考\nA?\n"),
        ("<details open>\n<summary>Thought for 3 s</summary>\nA?</details>\nB", "B", "\nA?"),
        ('<details type="reasoning" done="true"> <summary> Thinking... </summary>\n> A?\n</details>B', "B", "\n> A?\n"),
        ("<Details><Summary>思考过程</Summary>A?</Details>B", "B", "A?"),
        ("&lt;think&gt;A?&lt;/think&gt;B", "B", "A?"),
        ("＜think＞A?＜/think＞B", "B", "A?"),
        ("【思考】A?【/思考】B", "B", "A?"),
        ("<|channel>thought\nA?<channel|>B", "B", "\nA?"),
    ],
)
def test_what_a_server_folds_away_before_the_text_is_thinking(reply: str, text: str, thinking: str) -> None:
    split = split_thinking(reply)
    assert (split.text, split.thinking) == (text, thinking)


@pytest.mark.parametrize(
    "reply",
    [
        "```\nB\n```",
        "```python\nthink()\n```\nB",
        "```thinker\nB\n```",
        "> B",
        "> A or B?\n\nB",
        "> Reasons: A\nB",
        "B\n> *Thinking...*\n> A?",
        "B\n```thinking\nA?\n```",
        "*Thinking...*\nB",
        "**Thinking**\n\nB\n> A",
        "**Thinking:** B",
        "Thinking\n> B",
        "<details><summary>Example</summary>A</details>B",
        "# B",
        "**",
        "```",
        ">",
        " \n",
    ],
)
def test_other_fences_and_quotes_are_text(reply: str) -> None:
    split = split_thinking(reply)
    assert (split.text, split.thinking) == (reply, "")


def test_a_letter_in_bold_is_text_at_once() -> None:
    assert ThinkingSplitter().feed("**B") == "**B"


@given(REPLIES | MARKED | FOLDED, st.data())
def test_every_way_to_cut_a_reply_gives_the_same(reply: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)))))

    splitter = ThinkingSplitter()
    for begin, end in zip([0, *cuts], [*cuts, len(reply)], strict=True):
        splitter.feed(reply[begin:end])

    whole = split_thinking(reply)
    assert (splitter.end(), splitter.thinking) == (whole.text, whole.thinking)
    assert splitter.took_text_back == whole.took_text_back


@given(REPLIES)
def test_text_that_was_shown_stays_unless_it_turns_out_to_be_thinking(reply: str) -> None:
    splitter = ThinkingSplitter()
    shown = ""
    for character in reply:
        text = splitter.feed(character)
        assert text.startswith(shown) or shown.strip() in splitter.thinking
        shown = text


@given(REPLIES)
def test_only_the_marks_and_white_space_are_lost(reply: str) -> None:
    split = split_thinking(reply)

    bare = re.sub("</?think>", "", reply)
    assert sorted("".join(bare.split())) == sorted("".join((split.text + split.thinking).split()))


DECLARED = ThinkingMarks(("<Plan>", "~end~"))


@pytest.mark.parametrize(
    ("reply", "text", "thinking"),
    [
        ("<plan>A?~end~\n\nB", "B", "A?"),
        ("<PLAN>A?~END~B", "B", "A?"),
        ("A?~end~B", "B", "A?"),
        ("<plan>A?", "", "A?"),
        ("<think>A?</think>B", "B", "A?"),
        ("<plan>A?</think>~end~B", "B", "A?</think>"),
        ("a ~ b", "a ~ b", ""),
        ("a ~en", "a ~en", ""),
    ],
)
def test_the_marks_a_model_file_declares_are_known_beside_the_others(reply: str, text: str, thinking: str) -> None:
    whole = split_thinking(reply, DECLARED)
    assert (whole.text, whole.thinking) == (text, thinking)
    pieces = ThinkingSplitter(DECLARED)
    for character in reply:
        pieces.feed(character)
    assert (pieces.end(), pieces.thinking) == (text, thinking)


def test_a_declared_end_may_be_one_that_is_known() -> None:
    marks = ThinkingMarks(("<plan>", "</think>"))
    for reply in ("<plan>A?</think>B", "<think>A?</think>B"):
        split = split_thinking(reply, marks)
        assert (split.text, split.thinking) == ("B", "A?")
