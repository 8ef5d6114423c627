r"""The rule ``labelled``, and reading a reply for a match that nothing to come can change."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from bundle.errors import ConfigError
from bundle.tasks.answers.rule import AnswerReader, AnswerRule, check_options

_COLONS = ":："


class FirstMatchReader:
    """Returns the answer of the first match as soon as it arrives; without one it waits for the end of the reply.

    The first match is final, whatever text follows.

    The time taken grows with the length of the reply and not with its square, however small the pieces are: fillers
    complete no match, and of text without a match only its end is searched again, where one may have begun.

    Args:
        expression: A label without fillers in it, any number of fillers, one character that is the answer (group 1).
        otherwise: The answer in a whole reply that has no such match.
    """

    def __init__(
        self,
        expression: re.Pattern[str],
        is_filler: Callable[[str], bool],
        label_length: int,
        otherwise: Callable[[str], str],
    ) -> None:
        self._expression = expression
        self._is_filler = is_filler
        self._label_length = label_length
        self._otherwise = otherwise
        self._read: list[str] = []
        self._open: list[str] = []
        self._answer: str | None = None

    def feed(self, piece: str) -> str | None:
        if self._answer is None:
            self._read.append(piece)
            self._open.append(piece)
            if not all(map(self._is_filler, piece)):
                self._look("".join(self._open))
        return self._answer

    def end(self) -> str:
        return self._otherwise("".join(self._read)) if self._answer is None else self._answer

    def _look(self, text: str) -> None:
        if match := self._expression.search(text):
            self._answer = match[1]
            return
        end = len(text)
        while self._is_filler(text[end - 1]):
            end -= 1
        self._open = [text[max(0, end - self._label_length) :]]


@dataclass(frozen=True, slots=True)
class Labelled(AnswerRule):
    r"""The first option after a label, a colon and anything but letters and digits: "**答案:** B".

    With label "答案", colon ":" and ``ignore_case`` this is OpenCompass's ``match_answer_pattern`` with the expression
    ``(?i)答案\s*:\s*[\W]*([A-D])[\W]*``. Under ``ignore_case`` "答案: b" answers "b", which is not "B", here as there.

    The first match is final. Say it begins at s. An earlier beginning p that the text to come could complete has
    consumed everything from p on, the label at s too. But after its own label, p takes no word character except the
    answer, and with that it would be a match already, and the first one; and where the two labels overlap, the one at s
    puts a word character in the place of p's colon. And from s on, what stands between label and answer ends with the
    first word character, so the answer is that one.

    Attributes:
        label: Letters and digits of any script.
        colon: The colons that may follow the label, one or both of ":" and "：".
    """

    name: ClassVar[str] = "labelled"

    label: str
    options: str = "ABCD"
    colon: str = _COLONS
    ignore_case: bool = False
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self.options)
        if not re.fullmatch(r"\w+", self.label):
            raise ConfigError(
                f"The label {self.label!r} is not a word of letters and digits.", remedy='For example, "答案".'
            )
        if not self.colon or not set(self.colon) <= set(_COLONS):
            raise ConfigError(f"The colon {self.colon!r} is not ':', '：' or both.", remedy='Use ":：" for both.')
        # Possessive: what may be a filler is neither a colon nor an option, and trying other splits would be quadratic.
        object.__setattr__(self, "_expression", re.compile(self.expression))

    @property
    def expression(self) -> str:
        """The rule as a regular expression."""
        case = "(?i)" if self.ignore_case else ""
        return rf"{case}{self.label}\s*+[{self.colon}]\W*+([{self.options}])"

    def extract(self, reply: str) -> str:
        match = self._expression.search(reply)
        return match[1] if match else ""

    def reader(self) -> AnswerReader:
        return FirstMatchReader(self._expression, _is_no_word, len(self.label), self.extract)


def _is_no_word(character: str) -> bool:
    r"""What ``\W`` matches."""
    return not (character.isalnum() or character == "_")
