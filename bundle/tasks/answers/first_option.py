"""The rule ``first_option``."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bundle.errors import ConfigError
from bundle.tasks.answers.first_match import FirstMatchReader, Labelled
from bundle.tasks.answers.option_patterns import FINAL, searches
from bundle.tasks.answers.rule import AnswerReader, AnswerRule


@dataclass(frozen=True, slots=True)
class FirstOption(AnswerRule):
    """The first option, by the order of the options, in the first of some fifty patterns that finds one.

    OpenCompass's ``first_option_postprocess`` (``opencompass/utils/text_postprocessors.py``) with its patterns, their
    order and its oddities: "The correct answer is: All of … boxed{B}" answers A, because an A is in what was matched.

    Only the first pattern is final: nothing goes before it, and its match cannot begin earlier when more text comes,
    as no other match of it can contain its label. For any other answer the whole reply must be known, since a pattern
    of higher rank may still match.

    Attributes:
        options: The letters or digits that are options, such as "ABCD".
    """

    name: ClassVar[str] = "first_option"

    options: str = "ABCD"
    _searches: tuple[Callable[[str], str | None], ...] = field(init=False, repr=False, compare=False)
    _final: Labelled = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Put the options into the patterns.

        Raises:
            ConfigError: They are not different ASCII letters or digits.
        """
        options = self.options
        if not (options.isascii() and options.isalnum() and len(set(options)) == len(options)):
            raise ConfigError(
                f"The options {options!r} are not different ASCII letters or digits.", remedy='Write "ABCD", say.'
            )
        object.__setattr__(self, "_searches", searches(options))
        final = re.compile(FINAL.format(options=options))
        object.__setattr__(self, "_final", Labelled(final, str.isspace, len("答案是")))

    def extract(self, reply: str) -> str:
        text = reply.strip()
        for search in self._searches:
            found = search(text)
            if found is not None:
                for option in self.options:
                    if option in found:
                        return option
        return ""

    def reader(self) -> AnswerReader:
        return FirstMatchReader(self._final, self.extract)

    def can_find(self, answer: str) -> bool:
        return len(answer) == 1 and answer in self.options

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.name, "options": self.options}
