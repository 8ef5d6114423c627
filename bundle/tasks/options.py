"""The options of a question of the user's own, and the ways people write which of them is right."""

import ast
import contextlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bundle.system.text import quoted
from bundle.tasks.benchmarks import BENCHMARKS

LETTERS, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"

AnswerAs = Literal["letter", "text", "index"]
"""How a file writes its answers."""

Options = dict[str, str]
"""Letter -> text."""

# What may stand around and between letters, after NFKC: "(A)", "A.", "A、C", "A and C".
_LETTER_ALONE = re.compile(r"[(\[【<]*\s*([A-Za-z0-9])\s*[)\]】>.:、。,]*")
_LABELLED = re.compile(r"\s*[(（]?([A-Z])[)）.．、:：]\s*(.*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_BETWEEN = r"(?:\s|[,、;/|&+()\[\]\"'。.]|和|与|及|以及|and\b)*"


class Number(str):
    """A number in JSON, as the text it is written as."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Gold:
    """The right answer of a row.

    Attributes:
        text: An option's letter, several letters in the order of the options, or any text.
        is_options: Whether it is letters.
    """

    text: str
    is_options: bool = False
    index: int | None = None


def is_option(answer: str, options: str) -> bool:
    """Whether an answer is one of the options, or several; where these are not known (""), whether there is one."""
    return bool(answer) and (not options or set(answer) <= set(options))


def is_answer(answer: str, text: str, options: str) -> bool:
    """Whether what was found in a text is an option, or several, and no letter of a word; "" as in `is_option`."""
    return is_option(answer, options) and not (options and word_around(answer, text, options))


def begins_no_word(answer: str, text: str) -> bool:
    """Whether a letter is known not to begin a word, as the A of "Answer: B" does: what follows it has come."""
    begin = text.find(answer)
    if begin < 0 or not (len(answer) == 1 and answer.isascii() and answer.isalpha()):
        return True
    following = text[begin + 1 : begin + 2]
    return following != "" and not "a" <= following <= "z"


def word_around(letter: str, text: str, options: str) -> str:
    """The word that a letter was taken from, such as "Answer" or "AI" for A; "" if the letter may be an answer.

    It may be where it stands alone once, or with nothing but other options, as in "AC".
    """
    if not (len(letter) == 1 and letter.isascii() and letter.isalpha()):
        return ""
    # Most letters stand alone, which is seen in a tenth of the time that cutting a reply into words takes.
    if letter in options and re.search(rf"{letter}(?<![A-Za-z]{letter})(?![A-Za-z])", text):
        return ""
    words = [word for word in _WORD.findall(text) if letter in word]
    return words[0] if words and not any(set(word) <= set(options) for word in words) else ""


def options_of(benchmark: str, rule: Mapping[str, Any], golds: Iterable[str]) -> str:
    """The options that a task's questions have: those it names, or else those that its gold answers show.

    ``rule`` is the answer rule with its settings, as in ``run.json``. Returns letters or digits; "" for answers of any
    text.
    """
    if known := rule.get("options") or ("ABCD" if benchmark in BENCHMARKS else ""):
        return str(known)
    golds = {gold for gold in golds if gold}
    letters = set("".join(golds))
    if not golds or not all("A" <= letter <= "Z" for letter in letters) or any(len(set(g)) < len(g) for g in golds):
        return ""
    # The last options may not be right once, so that a few more are allowed.
    return "".join(chr(code) for code in range(ord("A"), ord(max(letters | {"D"})) + 1))


def options_in(value: object) -> Options | None:
    """The options in a JSON value: a list, an object by letter, or an object of "label" and "text" lists."""
    match value:
        case [_, *_] if len(value) <= len(LETTERS):
            return _texts(dict(zip(LETTERS, value, strict=False) if (own := _own_letters(value)) is None else own))
        case {"label": [*labels], "text": [*texts]} if len(labels) == len(texts):
            return _texts(dict(zip(map(str, labels), texts, strict=True)))
        case {**items} if items:
            return _texts({str(key).upper(): text for key, text in items.items()})
    return None


def options_in_cell(cell: str) -> Options | None:
    """The options in a CSV cell that holds a list as JSON or Python writes it."""
    if not cell.lstrip().startswith(("[", "{")):
        return None
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = parse(cell.strip())
            if isinstance(value, list):
                value = [str(one) if isinstance(one, int | float) else one for one in value]
            return options_in(value)
    return None


def _own_letters(options: Sequence[object]) -> list[tuple[str, str]] | None:
    """The letters and texts of a list whose options bring their letters, as in "A. yes"; None for another."""
    found = [match.groups() for one in options if isinstance(one, str) and (match := _LABELLED.fullmatch(one))]
    is_list = sorted(letter for letter, _ in found) == list(LETTERS[: len(options)])
    return [(letter, text) for letter, text in found] if is_list and len(found) > 1 else None


def _texts(items: Mapping[str, object]) -> Options | None:
    found = {key: text for key, text in items.items() if isinstance(text, str) and len(key) == 1 and key.isalnum()}
    return found if len(found) == len(items) else None


def numbered(options: Options) -> str:
    """The options as a prompt shows a list of them: "A. …" on lines of their own."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def several(text: str, letters: str, *, ignore_case: bool = True) -> str:
    """The options that a text consists of, in their order: "CA", "A、C" and "(A) and (C)" are "AC".

    Returns "" if there is anything else in the text, or an option twice.
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    form = rf"{_BETWEEN}(?:[{letters}]{_BETWEEN})+"
    if not re.fullmatch(form, plain, re.IGNORECASE if ignore_case else 0):
        return ""
    bare = re.sub(r"(?i)\band\b", "", plain)
    found = [one for one in (bare.upper() if ignore_case else bare) if one in letters]
    return in_order(found, letters) if len(set(found)) == len(found) else ""


def in_order(found: "list[str] | set[str] | str", letters: str) -> str:
    return "".join(letter for letter in letters if letter in found)


def read_gold(answer: str, options: Options, letters: str, *, texts: bool, how: AnswerAs | None, base: int) -> Gold:
    """Which option a file's answer means. Raises ValueError if it means none, or several.

    Args:
        answer: As in the file; a `Number` where it is one in JSON.
        texts: Whether an option's own text stands for its letter; otherwise such an answer stays as it is.
    """
    plain = _plain(answer)
    if not letters:
        return Gold(str(answer))
    with_letter = _LABELLED.fullmatch(plain)
    by_text = {letter for letter, text in options.items() if plain == _plain(text)} or {
        letter for letter, text in options.items() if with_letter and with_letter.groups() == (letter, _plain(text))
    }
    if by_text and not texts and how != "index":
        return Gold(str(answer))
    readings: dict[AnswerAs, str] = {}
    if how in (None, "letter"):
        alone = _LETTER_ALONE.fullmatch(plain)
        written = next((x for x in (alone[1], alone[1].upper()) if x in letters), "") if alone else ""
        if found := written or several(plain, letters):
            readings["letter"] = found
    if how in (None, "text") and len(by_text) == 1:
        readings["text"] = by_text.pop()
    if how in (None, "index") and options and (how or texts or isinstance(answer, Number)) and plain.isdecimal():
        place = int(plain[:9]) - base
        if 0 <= place < len(options):
            readings["index"] = list(options)[place]
        elif not readings:
            raise ValueError(
                f"the answer is {plain[:9]}, but the {len(options)} options are numbered from {base}; "
                f"'rows.first_index' sets the first number"
            )
    if readings.get("letter") == answer and len(answer) == 1:
        return Gold(readings["letter"], is_options=True)
    numbers = any(isinstance(text, Number) for text in options.values())
    if isinstance(answer, Number) and "index" in readings and not numbers:
        return Gold(readings["index"], is_options=True, index=int(plain))
    if len(set(readings.values())) > 1:
        meant = " or ".join(f"{found} (as {how})" for how, found in readings.items())
        raise ValueError(f"the answer {quoted(answer)} can mean {meant}; 'rows.answer_as' says which")
    for kind, found in readings.items():
        return Gold(found, is_options=True, index=int(plain) if kind == "index" else None)
    if not texts:
        return Gold(str(answer))
    if len(by_text) > 1:
        raise ValueError(f"the answer {quoted(answer)} is the text of several options: {', '.join(sorted(by_text))}")
    raise ValueError(f"the answer is {quoted(answer)}, which is not one of the options {', '.join(letters)}")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()
