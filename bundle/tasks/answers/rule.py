"""What every answer rule can do."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from bundle.errors import ConfigError


class AnswerReader(Protocol):
    """Reads one reply."""

    def feed(self, piece: str) -> str | None:
        """Take the next piece of the reply; return the answer once it is final, else None."""

    def end(self) -> str:
        """The reply is complete: return its answer, or "" if it has none; raises as `AnswerRule.extract`."""


class AnswerRule(ABC):
    """What counts as the answer in a reply.

    A rule is a dataclass whose fields are its keys under ``[answer]`` in a task file, each a str or a bool.
    """

    name: ClassVar[str]
    """As in task files."""
    options: str

    @abstractmethod
    def extract(self, reply: str) -> str:
        """The answer in a whole reply, or "" if it has none. Raises AnswerError if the search took too long."""

    def can_find(self, answer: str) -> bool:
        """Whether there is a reply in which this rule would find this answer: one of its options, if it has such."""
        return len(answer) == 1 and answer in self.options

    def reader(self) -> AnswerReader:
        """A reader for one reply; what it returns is what `extract` finds in the whole of it."""
        return _WholeReplyReader(self)

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.name} | {field.name: getattr(self, field.name) for field in settings_of(type(self))}


def settings_of(rule: type[AnswerRule]) -> list["dataclasses.Field[Any]"]:
    """The fields of a rule that a task file can set."""
    return [field for field in dataclasses.fields(rule) if field.init]  # type: ignore[arg-type]  # all are dataclasses


def check_options(options: str) -> None:
    """Check what a rule may find. Raises ConfigError if they are not distinct ASCII letters or digits."""
    if not (options.isascii() and options.isalnum() and len(set(options)) == len(options)):
        raise ConfigError(
            f"The options {options!r} are not distinct ASCII letters or digits.", remedy='For example, "ABCD".'
        )


class _WholeReplyReader:
    def __init__(self, rule: AnswerRule) -> None:
        self._rule = rule
        self._pieces: list[str] = []

    def feed(self, piece: str) -> None:
        self._pieces.append(piece)

    def end(self) -> str:
        return self._rule.extract("".join(self._pieces))
