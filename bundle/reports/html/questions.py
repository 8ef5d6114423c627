"""All questions of a run, laid out for the page: columns to sort and filter by, and long texts in chunks."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bundle.runs.predictions import Prediction
from bundle.runs.prompts import RecordedPrompt
from bundle.runs.recorded_run import RecordedRun
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key

CHUNK: Final = 200
"""Questions per chunk; a chunk is parsed when one of its texts is first shown or searched."""


class Outcome(StrEnum):
    """What came of a question; in the order in which questions are listed, the worst first."""

    WRONG = "wrong"
    SILENT = "silent"
    """A reply without an answer that is an option, which counts as wrong."""
    FAILED = "failed"
    """No reply, which does not count as wrong."""
    UNASKED = "unasked"
    UNSCORED = "unscored"
    """An answer whose gold answer is secret."""
    RIGHT = "right"


OUTCOMES: Final = tuple(Outcome)


@dataclass(frozen=True, slots=True)
class QuestionData:
    """The data of the page's table of questions.

    Attributes:
        columns: One entry per question in each: ``part`` and ``outcome`` are indices, the rest is as in a prediction,
            None where unknown.
        chunks: `CHUNK` questions in each: name of the shared prefix, messages after it, reply, thinking, error, and
            finish reason. The last message is cut in pieces, each with its column, as `RecordedRun.pieces` does.
        beginnings: The shared prefixes by name, each message as role and content.
    """

    columns: dict[str, list[Any]]
    chunks: list[list[list[Any]]]
    beginnings: dict[str, list[list[str]]]

    @property
    def outcomes(self) -> list[int]:
        """How many questions have each of `OUTCOMES`."""
        found = self.columns["outcome"]
        return [found.count(code) for code in range(len(OUTCOMES))]


def question_data(run: RecordedRun) -> QuestionData:
    """Lay out the questions of a run, in the order of its tasks."""
    places = {part: number for number, part in enumerate(run.questions)}
    predictions = {one.key: one for one in run.predictions}
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    texts: list[list[Any]] = []
    beginnings: dict[str, list[list[str]]] = {}
    for key, prompt in run.prompts.items():
        prediction = predictions.get(key)
        values = (places[key.part], key.id, *_values(prompt, prediction, run.unparsed))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        texts.append(_texts(prompt, run.pieces(key), prediction))
        if prompt.prefix_name is not None:
            beginnings.setdefault(prompt.prefix_name, _pairs(prompt.prefix))
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    return QuestionData(columns, chunks, beginnings)


_COLUMNS = ("part", "id", "outcome", "answer", "gold", "characters", "tokens", "prompt_tokens", "latency", "attempts")


def _values(prompt: RecordedPrompt, prediction: Prediction | None, lost: Set[Key]) -> Sequence[Any]:
    if prediction is None:
        return OUTCOMES.index(Outcome.UNASKED), None, prompt.gold, None, None, None, None, None
    return (
        OUTCOMES.index(outcome(prediction, lost)),
        prediction.answer,
        prediction.gold,
        None if prediction.reply is None else len(prediction.reply),
        prediction.completion_tokens,
        prediction.prompt_tokens,
        prediction.latency_s,
        prediction.attempts,
    )


def outcome(prediction: Prediction, lost: Set[Key]) -> Outcome:
    """The outcome of a question that was asked; ``lost`` are those whose replies hold no option."""
    if prediction.error is not None:
        return Outcome.FAILED
    if prediction.key in lost:
        return Outcome.SILENT
    if prediction.correct is None:
        return Outcome.UNSCORED
    return Outcome.RIGHT if prediction.correct else Outcome.WRONG


def _texts(prompt: RecordedPrompt, pieces: Sequence[tuple[str, str]], prediction: Prediction | None) -> list[Any]:
    *before, last = prompt.own
    asked = [prompt.prefix_name, [*_pairs(before), [last["role"], pieces]]]
    if prediction is None:
        return [*asked, None, None, None, None]
    return [*asked, prediction.reply, prediction.thinking, prediction.error, prediction.finish_reason]


def _pairs(messages: Sequence[Message]) -> list[list[str]]:
    return [[one["role"], one["content"]] for one in messages]
