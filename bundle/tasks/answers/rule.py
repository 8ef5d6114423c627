"""What every answer rule can do."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol


class AnswerReader(Protocol):
    """Reads one reply."""

    def feed(self, piece: str) -> str | None:
        """Take the next piece of the reply; return the answer once it is certain, else None."""

    def end(self) -> str:
        """The reply is over: return its answer, or "" where it has none; raises as `AnswerRule.extract`."""


class AnswerRule(ABC):
    """What counts as the answer in a reply."""

    name: ClassVar[str]
    """As in task files."""

    @abstractmethod
    def extract(self, reply: str) -> str:
        """The answer in a whole reply, or "" where it has none.

        Raises:
            AnswerError: That cannot be found out in reasonable time.
        """

    @abstractmethod
    def reader(self) -> AnswerReader:
        """A reader for one reply; what it says is what `extract` finds in the whole of it."""

    @abstractmethod
    def can_find(self, answer: str) -> bool:
        """Whether there is a reply this answer would be found in."""

    def to_json(self) -> dict[str, Any]:
        """The rule and its settings, for a run's record."""
        return {"rule": self.name}
