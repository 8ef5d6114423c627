"""The rule ``pattern``: a regular expression of the task's own, searched for a bounded time."""

import re
import signal
import threading
from dataclasses import dataclass, field
from types import FrameType
from typing import ClassVar

from bundle.errors import AnswerError, ConfigError
from bundle.system.text import one_line, quoted
from bundle.tasks.answers.rule import AnswerRule, check_options
from bundle.tasks.options import several

_LONGEST_SEARCH_S = 1.0
"""Seconds of processor time; a well-written expression takes a thousandth of that for a long reply."""


@dataclass(frozen=True, slots=True)
class Pattern(AnswerRule):
    """The first group of the first match of a regular expression, as it stands in the reply.

    OpenCompass's ``match_answer_pattern`` (``opencompass/utils/text_postprocessors.py``). A longer text can match
    earlier or otherwise, so the rule waits for the end of the reply; the rule ``labelled`` need not.

    Attributes:
        pattern: The expression, with a group around the answer.
        options: What is found is read as these options, if it can be: "b", "(B)" and "Ｂ" as B. "" leaves it as it is.
    """

    name: ClassVar[str] = "pattern"

    pattern: str
    options: str = ""
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the expression.

        Raises ConfigError if it is not valid, or has no group; or the options cannot be used.
        """
        if self.options:
            check_options(self.options)
        try:
            expression = re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"{quoted(self.pattern)} is not a valid regular expression: {one_line(str(error))}.",
                remedy="Use the syntax of Python's re; in TOML, 'single quotes' leave backslashes alone.",
            ) from None
        if not expression.groups:
            raise ConfigError(
                f"The regular expression {quoted(self.pattern)} has no group.",
                remedy=r"Put parentheses around the answer, as in '答案: ([A-D])'.",
            )
        object.__setattr__(self, "_expression", expression)

    def extract(self, reply: str) -> str:
        match = self._search(reply.strip())
        found = (match[1] or "") if match else ""
        return (several(found, self.options) if self.options else "") or found

    def begin(self, text: str) -> int | None:
        """Where in a text the answer begins; None if there is none; raises as `extract`."""
        match = self._search(text)
        return match.start(1) if match and match[1] is not None else None

    def can_find(self, answer: str) -> bool:
        return True

    def _search(self, text: str) -> re.Match[str] | None:
        try:
            return search(self._expression, text, seconds=_LONGEST_SEARCH_S)
        except SearchTimeoutError:
            raise AnswerError(
                f"The regular expression {quoted(self.pattern)} was still searching after {_LONGEST_SEARCH_S:g} s "
                f"in a reply of {len(text):,} characters.",
                remedy="Rewrite it so that it can match in only one way: no repetition inside a repetition, and "
                "no two adjacent repetitions of the same characters.",
            ) from None


# Python's ``re`` tries one way to match after another, and for some expressions, such as ``(a+)+b``, there are more
# than a lifetime is enough for. It checks for signals meanwhile, so a timer ends such a search: what is found in time
# is exactly what ``re`` finds.


class SearchTimeoutError(Exception):
    """The search was given up."""


def _give_up(signum: int, frame: FrameType | None) -> None:
    raise SearchTimeoutError


def search(expression: re.Pattern[str], text: str, *, seconds: float) -> re.Match[str] | None:
    """What ``expression.search(text)`` finds.

    Only the main thread can be interrupted; in any other there is no limit. Raises SearchTimeoutError if it has found
    nothing after ``seconds`` of processor time.
    """
    if threading.current_thread() is not threading.main_thread():
        return expression.search(text)
    signal.signal(signal.SIGVTALRM, _give_up)
    # Processor time, so that a busy machine gives up on nothing that an idle one would find.
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return expression.search(text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
