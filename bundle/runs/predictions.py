"""One line of ``predictions.jsonl``: a question that was asked, and what came of it."""

import json
from dataclasses import dataclass, fields
from typing import Self

Key = tuple[str, str, str, int]
"""What tells a question from every other of a run: task, split, subject, row number."""

_ONLY_WHERE_PRESENT = ("cached_tokens", "thinking", "error")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A question's outcome.

    Attributes:
        task: The task's name.
        split: The split's name.
        subject: The subject's name.
        id: Row number in the split, from 0.
        reply: The reply's text; None where there is none.
        answer: What the task's rule found in the reply, "" for nothing; None without a reply.
        gold: The right answer; "" where it is secret.
        correct: Whether they agree; None without a reply, which is not a wrong answer, and where the answer is secret.
        finish_reason: Why the server stopped, as it said.
        decided_early: Whether the reply was cut off because its answer was certain.
        prompt_tokens: As counted by the server, None where it did not say.
        completion_tokens: Likewise.
        latency_s: Seconds from the last attempt's start to the reply's end.
        attempts: How often it was asked.
        cached_tokens: How many of the prompt's tokens were in the server's prefix cache, None where it did not say.
        thinking: What a reasoning model thought before it replied; None where it did not.
        error: Why there is no reply; None where there is one.
    """

    task: str
    split: str
    subject: str
    id: int
    reply: str | None
    answer: str | None
    gold: str
    correct: bool | None
    finish_reason: str | None
    decided_early: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    attempts: int
    cached_tokens: int | None = None
    thinking: str | None = None
    error: str | None = None

    @property
    def key(self) -> Key:
        """What tells its question from every other of the run."""
        return self.task, self.split, self.subject, self.id

    def to_json(self) -> str:
        """The line, without its newline. A lone surrogate in a reply is escaped, so that the file stays UTF-8."""
        content = {name: getattr(self, name) for name in _ORDER}
        for name in _ONLY_WHERE_PRESENT:
            if content[name] is None:
                del content[name]
        try:
            line = json.dumps(content, ensure_ascii=False)
            line.encode()
        except UnicodeEncodeError:
            line = json.dumps(content)
        return line

    @classmethod
    def from_json(cls, line: bytes | str) -> Self:
        """Read a line.

        Raises:
            ValueError: It is no prediction.
        """
        content = json.loads(line)
        if not isinstance(content, dict) or not _REQUIRED <= content.keys() <= _KNOWN:
            raise ValueError("not the fields of a prediction")
        return cls(**content)


_ORDER = tuple(field.name for field in fields(Prediction))
_KNOWN = frozenset(_ORDER)
_REQUIRED = _KNOWN - frozenset(_ONLY_WHERE_PRESENT)
