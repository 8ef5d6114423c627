"""The questions of one run, asked and scored; what is known so far can be had at any moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.client.early_decisions import EarlyDecisions
from bundle.evaluation.prefix_order import PrefixQueue, Queue
from bundle.evaluation.runner import Asking, ask_all, require_working, unanswered
from bundle.evaluation.suspects import Suspects
from bundle.evaluation.window import Window
from bundle.runs.predictions import Prediction
from bundle.runs.results import Results
from bundle.runs.run import Run
from bundle.tasks.catalog import Question, Task

if TYPE_CHECKING:
    from bundle.client.client import ChatClient


@dataclass(frozen=True, slots=True)
class AskingOptions:
    """How questions are asked.

    Attributes:
        concurrency: Most requests in flight.
        adaptive: Whether to look for how many the server has room for; False for always that many.
        full_replies: Whether replies are read to their end, also where their answer is certain before.
        prefix_order: Whether they are ordered so that the server's prefix cache is of use.
    """

    concurrency: int
    adaptive: bool
    full_replies: bool
    prefix_order: bool


class Evaluation:
    """Asks the questions of one or several tasks and keeps count.

    Args:
        tasks: The tasks, in the order they are shown.
        questions: The questions of this run.
        run: Where every outcome is written at once; what it knows already is not asked again.
        on_prediction: Told of every new outcome after that.

    Attributes:
        server: What is known of the server, for the results.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        questions: Sequence[Question],
        run: Run,
        on_prediction: Callable[[Prediction], None],
    ) -> None:
        self.tasks = tasks
        self.questions = questions
        self._run = run
        self._on_prediction = on_prediction
        self.server: dict[str, float] = {}
        asked = {question.key for question in questions}
        self.predictions = [prediction for prediction in run.known if prediction.key in asked]
        self._known = {prediction.key for prediction in self.predictions}
        self._suspects = Suspects()

    @property
    def unanswered(self) -> Sequence[Question]:
        """What nobody has asked yet, or asked in vain of a server that died."""
        return [question for question in self.questions if question.key not in self._known]

    async def ask(
        self, client: "ChatClient", max_out_len: Mapping[str, int], options: AskingOptions, *, ours: bool = False
    ) -> None:
        """Ask what has no reply yet.

        Args:
            client: Whom to ask.
            max_out_len: Most tokens a reply may have, by task name.
            options: How many at a time, in which order, and how replies are read.
            ours: Whether the server can be started again. Then it is asked something else where the last question
                failed, or one that was asked alone: what failed may be the server.

        Raises:
            RefusedError: The server refuses every question.
            FailingServerError: The server fails one question after the other.
            RunError: An outcome cannot be written down.
        """
        how = {
            task.name: Asking(
                task.answer_rule,
                max_out_len[task.name],
                None if options.full_replies else self._early_decisions(task, tls=client.tls),
            )
            for task in self.tasks
        }
        while True:
            await self._ask_unanswered(client, how, options, ours=ours)
            if not self._forget_what_was_cut_by_mistake(how):
                break
        self._run.flush()
        rate = _share_of_cached(self.predictions)
        if rate is None:
            rate = await client.prefix_cache_hit_rate()
        if rate is not None:
            self.server["prefix_cache_hit_rate"] = round(rate, 4)

    @property
    def suspected(self) -> int:
        """How many of the unanswered questions are asked one at a time, for a server has died of one of them."""
        return len(self._suspects.apart(self.unanswered)[1])

    async def _ask_unanswered(
        self, client: "ChatClient", how: Mapping[str, Asking], options: AskingOptions, *, ours: bool
    ) -> None:
        together, alone = self._suspects.apart(self.unanswered)
        window = Window(options.concurrency, adaptive=options.adaptive)
        in_order = PrefixQueue(together, lambda: window.limit) if options.prefix_order else Queue(together)
        one_by_one = [(Queue([question]), Window(1, adaptive=False)) for question in alone]
        for queue, so_many in ((in_order, window), *one_by_one):
            await ask_all(
                queue,
                client,
                how,
                window=so_many,
                on_begin=self._suspects.begun,
                on_failing=self._suspects.failing,
                on_prediction=self._record,
            )
            if ours and self._suspects.is_failing:
                await require_working(client)
                self._suspects.works()

    def _early_decisions(self, task: Task, *, tls: bool) -> EarlyDecisions:
        has_cut = any(one.decided_early and one.task == task.name for one in self.predictions)
        return EarlyDecisions(task.answer_rule, tls=tls, has_cut=has_cut)

    def _forget_what_was_cut_by_mistake(self, how: Mapping[str, Asking]) -> bool:
        """Leave to be asked again what was cut before its text turned out to be thinking; whether there is any."""
        mistaken = {task for task, asking in how.items() if asking.reading is not None and asking.reading.mistaken}
        for task in mistaken:
            how[task].reading.mistaken = False  # type: ignore[union-attr]
        forgotten = {one.key for one in self.predictions if one.task in mistaken and one.decided_early}
        self._known -= forgotten
        self.predictions = [one for one in self.predictions if one.key in self._known]
        return bool(forgotten)

    def server_lost(self, *, last_life: bool = False) -> Sequence[Question]:
        """The server has died or hangs; call `ask` again with another one.

        Questions that failed while it was failing are asked again, if there is another one. One that was alone with a
        dying server twice is set aside, as one without a reply.

        Args:
            last_life: Whether there will be no other one.

        Returns:
            What was set aside now.
        """
        failed = self._suspects.server_died()
        if not last_life:
            self._known -= failed
            self.predictions = [one for one in self.predictions if one.key in self._known]
        set_aside = self._suspects.to_set_aside(self.unanswered, last_life=last_life)
        for question in set_aside:
            deaths = self._suspects.deaths_with(question)
            self._record(unanswered(question, f"the server died of it, {deaths} times", attempts=deaths))
        return set_aside

    def results(self, timing: Mapping[str, float]) -> Results:
        """Scores and counts of what is known now.

        Args:
            timing: Seconds by phase.
        """
        keys = [question.key for question in self.questions]
        return Results.of(self.tasks, keys, self.predictions, timing=timing, server=self.server)

    def _record(self, prediction: Prediction) -> None:
        self._run.append(prediction)
        self._suspects.ended(prediction.key, replied=prediction.error is None)
        self._known.add(prediction.key)
        self.predictions.append(prediction)
        self._on_prediction(prediction)


def _share_of_cached(predictions: Sequence[Prediction]) -> float | None:
    """The share of prompt tokens that were in the server's prefix cache; None where too few replies tell.

    Replies that were cut do not, and those that were read to their end at first are the first of their subjects.
    """
    told = [one for one in predictions if one.cached_tokens is not None]
    prompts = sum(one.prompt_tokens or 0 for one in told)
    if not prompts or 2 * len(told) < len(predictions):
        return None
    return sum(one.cached_tokens or 0 for one in told) / prompts
