"""What a terminal is shown of text that somebody else wrote."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.system.text import did_you_mean, is_unicode, one_line, printable, quoted

TEXT = st.text(st.characters(codec=None), max_size=40)  # halves of characters as well


@pytest.mark.parametrize(
    "text",
    [
        "答案是A。“引号”、《书名》——破折号……（括号）\u3000龘𠮷",
        "😀 👨‍👩‍👧‍👦 👍🏽 ❤️ 🏳️‍🌈 👩🏽‍🚀 1️⃣ 🇨🇳",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # the flag of Scotland
        "e\u0301 한국어 हिन्दी क्\u200dष می\u200cخواهم ไทย \u845b\U000e0100",
        "C:\\path\\x1b 100\u00a0%",
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("user\u202egnp.exe\u2066\u2069\u200f\u061c", r"user\u202egnp.exe\u2066\u2069\u200f\u061c"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("pay\u200bpal\u2060\ufeff\u00ad", r"pay\u200bpal\u2060\ufeff\xad"),
        ("ab\u200dcd\u200c", r"ab\u200dcd\u200c"),  # joins nothing here
        ("hi\U000e0061\U000e0062", r"hi\U000e0061\U000e0062"),
        ("A\ufe0e\ufe01\U000e0121", "A\ufe0e\\ufe01\\U000e0121"),  # one selector chooses a form, more hide a message
        ("\ud83d\udcff", r"\ud83d\udcff"),
        ("\ue000\U000f0000\uffff", r"\ue000\U000f0000\uffff"),
        ("\u3164\u115f\u034f", r"\u3164\u115f\u034f"),
    ],
)
def test_what_acts_or_deceives_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(TEXT)
def test_nothing_that_acts_is_ever_left(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Zl", "Zp") for character in shown)
    assert not any(unicodedata.bidirectional(character) in _DIRECTIONS for character in shown)


_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(TEXT)
def test_what_was_made_visible_is_not_changed_again(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(TEXT, st.integers(2, 60))
def test_one_line_has_no_more_characters_than_asked(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert len(line) <= longest
    assert line == printable(line) == " ".join(line.split())


def test_one_line_shows_where_it_was_cut() -> None:
    assert one_line("a  b\n c", 10) == "a b c"
    assert one_line("x" * 11, 10) == "x" * 9 + "…"


@given(TEXT)
def test_quoted_text_is_printable_and_short(text: str) -> None:
    assert quoted(text, 20).isprintable()
    assert len(quoted("x" * 1000, 20)) == 22


def test_a_name_whose_bytes_are_no_text_is_told_from_one_that_is() -> None:
    assert is_unicode("模型")
    assert not is_unicode(b"\xff".decode("utf-8", "surrogateescape"))


def test_of_names_that_are_as_similar_the_first_is_suggested() -> None:
    assert did_you_mean("ceval", ["ceval_gen", "ceval_ppl"]) == "Did you mean ceval_gen?"


@pytest.mark.parametrize(
    ("name", "suggested"), [("question", "Did you mean question?"), ("question ", "Did you mean 'question '?")]
)
def test_a_suggestion_shows_white_space(name: str, suggested: str) -> None:
    assert did_you_mean("questoin", [name, "answer"]) == suggested
