"""The rule ``first_capital``."""

from dataclasses import dataclass
from typing import ClassVar

from bundle.tasks.answers.rule import AnswerReader, AnswerRule


@dataclass(frozen=True, slots=True)
class FirstCapital(AnswerRule):
    """The first upper-case character, whichever it is: "The answer is A" answers T, and is wrong.

    OpenCompass's ``first_capital_postprocess`` (``opencompass/utils/text_postprocessors.py``), which asks
    ``str.isupper`` of every character, so that upper-case letters of any script count.
    """

    name: ClassVar[str] = "first_capital"

    def extract(self, reply: str) -> str:
        return next((character for character in reply if character.isupper()), "")

    def reader(self) -> AnswerReader:
        return _Reader(self)

    def can_find(self, answer: str) -> bool:
        return len(answer) == 1 and answer.isupper()


class _Reader:
    def __init__(self, rule: FirstCapital) -> None:
        self._rule = rule
        self._answer = ""

    def feed(self, piece: str) -> str | None:
        self._answer = self._answer or self._rule.extract(piece)
        return self._answer or None

    def end(self) -> str:
        return self._answer
