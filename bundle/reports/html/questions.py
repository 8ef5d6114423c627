"""All questions of a run, laid out for the page: columns to sort and filter by, and long texts in chunks."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
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
    asked = [(key, prompt, predictions.get(key)) for key, prompt in run.prompts.items()]
    columns: dict[str, list[Any]] = {
        "part": [places[key.part] for key, _, _ in asked],
        "id": [key.id for key, _, _ in asked],
        "gold": [prompt.gold for _, prompt, _ in asked],
        "outcome": [OUTCOMES.index(outcome(one, run.unparsed)) for _, _, one in asked],
    }
    for name, value in _COLUMNS.items():
        columns[name] = [None if one is None else value(one) for _, _, one in asked]
    texts = [_texts(prompt, run.pieces(key), one) for key, prompt, one in asked]
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    prefixes = {prompt.prefix_name: prompt.prefix for _, prompt, _ in asked}
    return QuestionData(
        columns, chunks, {name: _pairs(shared) for name, shared in prefixes.items() if name is not None}
    )


_COLUMNS: Final[Mapping[str, Callable[[Prediction], Any]]] = {
    "answer": attrgetter("answer"),
    "characters": lambda one: None if one.reply is None else len(one.reply),
    "tokens": attrgetter("completion_tokens"),
    "prompt_tokens": attrgetter("prompt_tokens"),
    "latency": attrgetter("latency_s"),
    "attempts": attrgetter("attempts"),
}


def outcome(prediction: Prediction | None, lost: Set[Key]) -> Outcome:
    """The outcome of a question; ``lost`` are those whose replies hold no option."""
    if prediction is None:
        return Outcome.UNASKED
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
