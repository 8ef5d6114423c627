"""One task's questions, asked and scored; what is known so far can be had at any moment."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bundle.evaluation.client import ChatClient
from bundle.evaluation.runner import ask_all
from bundle.evaluation.scoring import Score, score
from bundle.runs import Prediction, Run
from bundle.tasks.catalog import Question, Task


@dataclass(frozen=True, slots=True)
class Results:
    """What ``results.json`` holds.

    Attributes:
        scores: By score name, groups first.
        total: Questions of this run.
        answered: Those with a reply.
        failed: Those that were asked in vain; the rest was never asked.
        timing: Seconds by phase.
        tokens: Prompt and completion tokens, as counted by the server.
    """

    scores: Mapping[str, Score]
    total: int
    answered: int
    failed: int
    timing: Mapping[str, float]
    tokens: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "scores": {name: asdict(one) for name, one in self.scores.items()},
            "coverage": {"total": self.total, "answered": self.answered, "failed": self.failed},
            "timing": {phase: round(seconds, 3) for phase, seconds in self.timing.items()},
            "tokens": dict(self.tokens),
        }


class Evaluation:
    """Asks a task's questions and keeps count.

    Args:
        task: What is asked.
        questions: The questions of this run.
        run: Where every outcome is written at once.
        on_prediction: Told of every outcome after that.
    """

    def __init__(
        self, task: Task, questions: Sequence[Question], run: Run, on_prediction: Callable[[Prediction], None]
    ) -> None:
        self.task = task
        self.questions = questions
        self._run = run
        self._on_prediction = on_prediction
        self._predictions: list[Prediction] = []

    async def ask(self, client: ChatClient, concurrency: int) -> None:
        """Ask everything, ``concurrency`` questions at a time.

        Raises:
            RefusedError: The server refuses every question.
            RunError: An outcome cannot be written down.
        """
        await ask_all(
            self.questions, client, self.task.answer_rule, concurrency=concurrency, on_prediction=self._record
        )

    def results(self, timing: Mapping[str, float]) -> Results:
        """Scores and counts of what is known now."""
        known = self._predictions
        return Results(
            scores=score(self.task, Counter(question.subject for question in self.questions), known),
            total=len(self.questions),
            answered=sum(one.error is None for one in known),
            failed=sum(one.error is not None for one in known),
            timing=timing,
            tokens={
                "prompt": sum(one.prompt_tokens or 0 for one in known),
                "completion": sum(one.completion_tokens or 0 for one in known),
            },
        )

    def _record(self, prediction: Prediction) -> None:
        self._run.append(prediction)
        self._predictions.append(prediction)
        self._on_prediction(prediction)
