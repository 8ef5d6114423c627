"""The rule ``pattern``: a regular expression of the task's own."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bundle.errors import AnswerError, ConfigError
from bundle.system.text import one_line, quoted
from bundle.tasks.answers.bounded_search import SearchTimeoutError, search
from bundle.tasks.answers.first_match import FirstMatchReader, Labelled
from bundle.tasks.answers.rule import AnswerReader, AnswerRule

_LONGEST_SEARCH_S = 1.0
"""Seconds of processor time; an expression that is written well takes a thousandth of that for a long reply."""

# Expressions like r"(?i)答案\s*:\s*[\W]*([A-D])[\W]*": a label of word characters, a colon, whatever is no word
# character, and one letter or digit.
_LABELLED = re.compile(
    r"(?P<label>(?:\(\?i\))?(?P<word>\w+)(?:\\s\*)?(?:[:：]|\[[:：]+\]))(?P<fillers>(?:\\s\*)?(?:\[\\W\]\*|\\W\*)?)"
    r"(?P<answer>\(\[[0-9A-Za-z](?:-[0-9A-Za-z]|[0-9A-Za-z]*)\]\))(?:\[\\W\]\*|\\W\*)?"
)


@dataclass(frozen=True, slots=True)
class Pattern(AnswerRule):
    r"""The first group of the first match of a regular expression, as it stands in the reply.

    OpenCompass's ``match_answer_pattern`` (``opencompass/utils/text_postprocessors.py``). Under ``(?i)`` a reply's
    "答案: b" answers "b", which is not "B", here as there.

    A longer text can match earlier or otherwise, so the rule waits for the end of the reply. Only for the form
    "label, colon, anything but word characters, one letter or digit" the first match is final. Say it begins at s.
    An earlier beginning p that the text to come could complete has consumed all from p on, the label at s too. But
    after its own label, p takes no word character except the answer, and with that it would be a match already, and
    the first one; and where the two labels overlap, the one at s puts a word character in the place of p's colon. And
    from s on, what stands between label and answer ends with the first word character, so the answer is that one.

    That form is searched for without trying in how many ways the fillers can be divided between ``\s*`` and ``\W*``,
    which would take time that grows with the square of their number. Any other expression has ``_LONGEST_SEARCH_S``.

    Attributes:
        pattern: The expression, with a group around the answer.
    """

    name: ClassVar[str] = "pattern"

    pattern: str
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _labelled: Labelled | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the expression.

        Raises:
            ConfigError: It cannot be, or has no group.
        """
        try:
            expression = re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"{quoted(self.pattern)} is no regular expression: {one_line(str(error))}.",
                remedy="It is written as for Python's re; in TOML, between 'single quotes' a backslash is itself.",
            ) from None
        if not expression.groups:
            raise ConfigError(
                f"The regular expression {quoted(self.pattern)} has no group.",
                remedy=r"Put parentheses around the answer, as in '答案: ([A-D])'.",
            )
        object.__setattr__(self, "_expression", expression)
        object.__setattr__(self, "_labelled", _labelled(self.pattern))

    def extract(self, reply: str) -> str:
        text = reply.strip()
        if self._labelled is not None:
            match = self._labelled.expression.search(text)
        else:
            try:
                match = search(self._expression, text, seconds=_LONGEST_SEARCH_S)
            except SearchTimeoutError:
                raise AnswerError(
                    f"The regular expression {quoted(self.pattern)} was still looking for the answer in a reply of "
                    f"{len(text):,} characters after {_LONGEST_SEARCH_S:g} s.",
                    remedy="Write it so that there is one way to match: without repetition inside a repetition, and "
                    "without two repetitions side by side that take the same characters.",
                ) from None
        return (match[1] or "") if match else ""

    def reader(self) -> AnswerReader:
        return _PatientReader(self) if self._labelled is None else FirstMatchReader(self._labelled, self.extract)

    def can_find(self, answer: str) -> bool:
        return True

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.name, "pattern": self.pattern}


class _PatientReader:
    """Waits for the end of the reply."""

    def __init__(self, rule: Pattern) -> None:
        self._rule = rule
        self._pieces: list[str] = []

    def feed(self, piece: str) -> None:
        self._pieces.append(piece)

    def end(self) -> str:
        return self._rule.extract("".join(self._pieces))


def _labelled(pattern: str) -> Labelled | None:
    """The form "label, colon, fillers, answer", where this is one, with the fillers in one piece."""
    form = _LABELLED.fullmatch(pattern)
    if form is None:
        return None
    fillers = "" if not form["fillers"] else r"\W*+" if "W" in form["fillers"] else r"\s*+"
    expression = re.compile(form["label"].replace(r"\s*", r"\s*+") + fillers + form["answer"])
    return Labelled(expression, _is_no_word, len(form["word"]))


def _is_no_word(character: str) -> bool:
    r"""What ``\W`` matches."""
    return not (character.isalnum() or character == "_")
