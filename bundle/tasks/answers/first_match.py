"""Reading a reply for a match that nothing to come can change."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labelled:
    """A regular expression "label, fillers, answer" whose first match is final, whatever text follows.

    Attributes:
        expression: A label without fillers in it, any number of fillers, one character that is the answer (group 1).
        is_filler: Whether a character is one.
        label_length: Most characters that a label has.
    """

    expression: re.Pattern[str]
    is_filler: Callable[[str], bool]
    label_length: int


class FirstMatchReader:
    """Says the answer of the first match as soon as it is there; without one it waits for the end of the reply.

    The time taken grows with the length of the reply and not with its square, however small the pieces are: fillers
    complete no match, and of text without a match only its end is looked at again, where one may have begun.

    Args:
        labelled: What to look for.
        otherwise: The answer in a whole reply that has no such match.
    """

    def __init__(self, labelled: Labelled, otherwise: Callable[[str], str]) -> None:
        self._labelled = labelled
        self._otherwise = otherwise
        self._read: list[str] = []
        self._open: list[str] = []
        self._answer: str | None = None

    def feed(self, piece: str) -> str | None:
        if self._answer is None:
            self._read.append(piece)
            self._open.append(piece)
            if not all(map(self._labelled.is_filler, piece)):
                self._look("".join(self._open))
        return self._answer

    def end(self) -> str:
        return self._otherwise("".join(self._read)) if self._answer is None else self._answer

    def _look(self, text: str) -> None:
        if match := self._labelled.expression.search(text):
            self._answer = match[1]
            return
        end = len(text)
        while self._labelled.is_filler(text[end - 1]):
            end -= 1
        self._open = [text[max(0, end - self._labelled.label_length) :]]
