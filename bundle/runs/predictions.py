"""``predictions.jsonl``: one row per question, with its outcome."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, TypeVar

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from bundle.config.faults import first_fault
from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS, RESULTS, parse_json, read_lines, to_json
from bundle.runs.task_record import Text
from bundle.system.files import open_regular
from bundle.tasks.scores import Key, Part

T = TypeVar("T")

_Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
_Seconds = Annotated[float, Field(ge=0, strict=True)]


@dataclass(slots=True)  # not frozen: a frozen one takes three times as long to make
class Prediction:
    """The outcome of a question.

    Attributes:
        id: Row number in the split, from 0.
        reply: The reply's text; None without a reply.
        answer: The answer that the task's rule found in it, "" for none; None without a reply.
        correct: Whether they agree; None without a reply, which is not a wrong answer, and where the gold is secret.
        decided_early: Whether the reply was stopped because its answer was final.
        prompt_tokens: As counted by the server; None where it did not say.
        latency_s: Seconds from the start of the last attempt to the end of the reply.
        cached_tokens: Prompt tokens found in the server's prefix cache; None where it did not say.
        thinking: A reasoning model's thoughts before its reply; None without any.
        chunks: Streamed chunks of a reply that was stopped early, whose tokens no server counts; None for others.
        examples_dropped: How many of the task's examples were left out because they did not fit; None for none.
        losses: The mean loss of the whole text with each option, in nats per token; None where a reply was asked for.
        model: The model that the reply names; None where that is the one asked for, or it names none.
        ended_at: When the reply was complete, in seconds since the epoch; None without a reply.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: Text
    split: Text
    subject: Text
    id: _Count
    reply: Text | None
    answer: Text | None
    gold: Text
    correct: StrictBool | None
    finish_reason: Text | None
    decided_early: StrictBool
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    latency_s: _Seconds
    attempts: _Count
    cached_tokens: _Count | None = None
    thinking: Text | None = None
    error: Text | None = None
    chunks: _Count | None = None
    examples_dropped: _Count | None = None
    losses: dict[Text, _Seconds] | None = None
    model: Text | None = None
    ended_at: _Seconds | None = None

    @property
    def key(self) -> Key:
        """Identifies its question within the run."""
        return Key(self.task, self.split, self.subject, self.id)

    @property
    def part(self) -> Part:
        return self.task, self.split, self.subject

    @property
    def agrees(self) -> bool | None:
        """Whether its answer is the gold answer; None where that is secret."""
        return self.answer == self.gold if self.gold else None

    def to_json(self) -> str:
        """The line, without its newline. What may be None by default is written only where it is known."""
        try:
            return _adapter().dump_json(self, exclude_defaults=True).decode()
        except PydanticSerializationError:  # a lone surrogate
            return to_json(_adapter().dump_python(self, exclude_defaults=True))

    @classmethod
    def from_json(cls, line: bytes | str) -> "Prediction":
        """Read a line. Raises ValueError if it is not a prediction."""
        try:
            row = _adapter().validate_json(line)
        except ValidationError:  # it may hold a lone surrogate, and what is wrong with it is said for Python's values
            try:
                row = _adapter().validate_python(parse_json(line))
            except ValidationError as error:
                raise ValueError(first_fault(error).rstrip(".")) from None
        if row.error is None:
            if row.reply is None or row.answer is None or row.correct is not row.agrees:
                raise ValueError("its reply, answer, gold and correct contradict each other")
        elif (row.reply, row.answer, row.correct) != (None, None, None):
            raise ValueError("it has both an error and a reply")
        return row


@cache
def _adapter() -> TypeAdapter[Prediction]:
    """Made on first use, which takes longer than reading some thousand rows."""
    return TypeAdapter(Prediction)


_ASK_AGAIN = f"Where there is a {RESULTS}, remove it; `bundle resume` then asks {{}} again."


def read_predictions(directory: Path) -> list[Prediction]:
    """Read the rows of a run, in the order they were written; an incomplete last row is left out.

    Raises RunError if they cannot be read, or a row is damaged.
    """
    return list(iter_predictions(directory))


def iter_predictions(
    directory: Path, wanted: Callable[[int], object] | None = None, opened: BinaryIO | None = None
) -> Iterator[Prediction]:
    """The same one by one, or only those whose numbers, from 0, are wanted; ``opened`` as in `read_lines`."""
    if wanted is None:
        return _rows(directory, Prediction.from_json, opened)
    numbers = itertools.count()
    read = _rows(directory, lambda line: Prediction.from_json(line) if wanted(next(numbers)) else None, opened)
    return (row for row in read if row is not None)


def ends_in_a_row(path: Path) -> bool:
    """Whether nothing follows the last whole row of a file."""
    with open_regular(path) as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read() in (b"", b"\n")


def count_rows(directory: Path) -> int:
    """How many rows a run has, with and without a reply, in a fraction of the time that it takes to read them.

    Raises RunError if they cannot be read, or a row is damaged so badly that it shows.
    """
    return sum(1 for _ in _rows(directory, _require_text))


def _rows(directory: Path, read: Callable[[bytes], T], opened: BinaryIO | None = None) -> Iterator[T]:
    path = directory / PREDICTIONS
    number = 0
    try:
        for number, line in enumerate(read_lines(path, opened), 1):
            if line.endswith(b"\n"):
                yield read(line)
            else:
                _require_cut_off(line, alone=number == 1)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist.", remedy=_ASK_AGAIN.format("all questions")) from None
    except (ValueError, RecursionError) as error:
        why = "not JSON" if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
        raise RunError(
            f"{path}, line {number}, is damaged: {why}.",
            remedy=f"Remove that line. {_ASK_AGAIN.format('its question')}",
        ) from None


def _require_text(line: bytes) -> None:
    if not line.startswith(b"{") or b"\0" in line:
        raise ValueError("not JSON")


def _require_cut_off(line: bytes, *, alone: bool) -> None:
    """Require that a last line without its newline is the beginning of a row.

    After a crash, a file system may leave zeros at the end of a file, in place of what it had not written yet. Where
    there is nothing else, whatever was there is lost.
    """
    text = line.rstrip(b"\0")
    if b"\0" in text or text[:1] not in (b"", b"{") or (alone and not text):
        raise ValueError("not JSON")


def one_per_question(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The last row with a reply of every question; where there is none, its last row."""
    chosen: dict[Key, Prediction] = {}
    for one in predictions:
        if one.error is None or one.key not in chosen or chosen[one.key].error is not None:
            chosen[one.key] = one
    return list(chosen.values())
