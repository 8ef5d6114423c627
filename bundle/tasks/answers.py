"""What counts as the answer in a reply.

A rule reads the reply piece by piece and says "not yet" or the answer. What it has said never changes, so a reply
whose answer is known need not be read, or generated, any further.
"""

from collections.abc import Callable, Mapping
from typing import Protocol


class AnswerReader(Protocol):
    """Reads one reply."""

    def feed(self, piece: str) -> str | None:
        """Take the next piece of the reply; return the answer once it is certain, else None."""

    def end(self) -> str:
        """The reply is over: return its answer, or "" where it has none."""


class FirstCapital:
    """The first upper-case character, whichever it is: "The answer is A" answers T, and is wrong.

    OpenCompass's ``first_capital_postprocess`` (``opencompass/utils/text_postprocessors.py``), which asks
    ``str.isupper`` of every character, so that upper-case letters of any script count.
    """

    def __init__(self) -> None:
        self._answer: str | None = None

    def feed(self, piece: str) -> str | None:
        if self._answer is None:
            self._answer = next((character for character in piece if character.isupper()), None)
        return self._answer

    def end(self) -> str:
        return self._answer or ""


ANSWER_RULES: Mapping[str, Callable[[], AnswerReader]] = {"first_capital": FirstCapital}
"""Every rule by its name in task files."""


def extract(rule: str, reply: str) -> str:
    """The answer in a whole reply by the rule of that name, or "" where it has none."""
    reader = ANSWER_RULES[rule]()
    reader.feed(reply)
    return reader.end()
