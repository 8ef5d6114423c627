"""The questions of one run and their outcomes, from which results follow at any moment."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING

from bundle.client import EarlyDecisions, NoReplyError, Reply
from bundle.evaluation._asking import Asking, AskingOptions, FirstRefusals, Workers, require_working, unanswered
from bundle.evaluation._leases import queue_of
from bundle.evaluation._repeats import ask_again, compare, spread_over_subjects
from bundle.evaluation._sharing import Sharing
from bundle.evaluation._suspects import AfterCrash, Suspects
from bundle.runs.health import Health, examine, known_options, options_of
from bundle.runs.predictions import Prediction, share_of_cached
from bundle.runs.results import Repeat, Results
from bundle.runs.run import Run
from bundle.system.background import first_fault_only
from bundle.tasks.catalog import Question, Task
from bundle.tasks.scores import Key

if TYPE_CHECKING:  # imported late: slow, and a local server should start first
    from bundle.client import Client


_STOPPED_BY_MISTAKE = "the reply was stopped before its text turned out to be thinking"


class Evaluation:
    """Asks the questions of one or several tasks and keeps their outcomes.

    Args:
        tasks: The tasks, in the order they are shown.
        questions: The questions of this run.
        run: Where every outcome is written at once. Questions with a reply in it are not asked again.
        on_prediction: Called with every new outcome after that.
        max_out_len: Maximum tokens per reply, by task name.
        asking: How many questions at once, in which order, and how replies are read.
        servers: How many are asked at once: number 0 by `ask`, the others by `help_asking`.
        fewer_examples: Makes a question with so many examples, for a server that finds it too long.

    Attributes:
        questions: As they were sent last, or will be sent.
        predictions: The outcomes so far, one per question.
        restarts: How many times the server was lost with questions left.
        new: Outcomes of this session.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        questions: Sequence[Question],
        run: Run,
        on_prediction: Callable[[Prediction], None],
        *,
        max_out_len: Mapping[str, int],
        asking: AskingOptions,
        servers: int = 1,
        fewer_examples: Callable[[Question, int], Question] | None = None,
    ) -> None:
        self.tasks = tasks
        self._max_out_len = max_out_len
        self._asking = asking
        self._fewer_examples = fewer_examples
        self._examples = {task.name: task.examples for task in tasks}
        dropped = {one.key: one.examples_dropped or 0 for one in run.known}
        self.questions = [self._as_sent(question, dropped.get(question.key, 0)) for question in questions]
        self._index = {question.key: index for index, question in enumerate(self.questions)}
        self._run = run
        self._on_prediction = on_prediction
        self.restarts = 0
        self.new = 0
        self._cache_hit_rate: float | None = None
        self._request_changes: list[str] = []
        self._repeat: Repeat | None = None
        self.predictions = [prediction for prediction in run.known if prediction.key in self._index]
        self._known = {prediction.key for prediction in self.predictions}
        self._suspects = Suspects()
        self._failed_in_passing: set[Key] = set()
        self._sharing = Sharing(servers)
        self._shared_how: Mapping[str, Asking] | None = None
        self._thinks_aloud: set[str] = set()

    @property
    def unanswered(self) -> Sequence[Question]:
        """The questions still to be asked, or to be asked again after a crash of the server."""
        return [question for question in self.questions if question.key not in self._known]

    @property
    def in_flight(self) -> int:
        """How many questions wait for their reply."""
        return self._suspects.in_flight + self._sharing.in_flight

    async def ask(self, client: "Client", *, ours: bool = False) -> None:
        """Ask the unanswered questions.

        Args:
            client: The server.
            ours: Whether the server can be restarted. Then it is sent a test request if the last question failed, or
                one that was asked alone: it may be the server that fails.

        Raises:
            RefusedError: The server refuses every question.
            FailingServerError: Too many questions in a row failed.
            RunError: An outcome cannot be written.
        """
        how = self._how(client)
        first = self._first_refusals(count_transient=not ours)
        try:
            while True:
                await self._ask_unanswered(client, how, first, ours=ours)
                # What another server has lost meanwhile is asked here, and what was stopped by mistake.
                if not self.unanswered:
                    break
        finally:
            self._request_changes = list(dict.fromkeys([*self._request_changes, *client.changes]))
        self._run.flush()
        self._cache_hit_rate = share_of_cached(self.predictions)
        if self._cache_hit_rate is None:
            self._cache_hit_rate = await client.prefix_cache_hit_rate()

    async def help_asking(self, server: int, client: "Client") -> None:
        """Ask the questions that fall to another server than that of `ask`, until it is cancelled.

        Args:
            server: Its number, from 1.
            client: The server.

        Raises:
            RefusedError: The server refuses every question.
            FailingServerError: Too many questions in a row failed.
            RunError: An outcome cannot be written.
        """
        while True:
            await self._sharing.pool.has_work()
            window = self._asking.window()
            await Workers(
                self._sharing.queue(server, window),
                client,
                self._how(client),
                window=window,
                suspects=self._sharing.suspects[server],
                first=self._first_refusals(count_transient=False),
                passing=self._failed_in_passing,
                record=partial(self._record, server=server),
            ).ask_all()

    def helper_lost(self, server: int) -> int:
        """Note that a server of `help_asking` crashed or hangs: what it had in flight is asked by `ask`, last.

        Returns:
            How many questions that is.
        """
        in_flight, failed = self._sharing.lost(server)
        self._forget_failed(failed)
        self._suspects.suspect(in_flight)
        return len(in_flight)

    async def others_done(self) -> None:
        """Wait until the other servers have nothing left."""
        await self._sharing.pool.drained()

    def forget_failed_in_passing(self) -> int:
        """Have what failed for a reason that may have passed asked once more by `ask`; return how many that is."""
        forgotten, self._failed_in_passing = self._failed_in_passing, set()
        self._forget(forgotten)
        return len(forgotten)

    async def repeat(self, client: "Client", times: int) -> None:
        """Ask a sample of the answered questions again and compare the replies; no score changes.

        Args:
            client: The server.
            times: How many times each question is to be asked, counting the one before.

        Raises:
            RefusedError: The server refuses every question.
            FailingServerError: Too many questions in a row failed.
        """
        answered = {one.key: one for one in self.predictions if one.error is None}
        sample = spread_over_subjects(question for question in self.questions if question.key in answered)
        how = self._how(client)
        passes = [await ask_again(client, how, self._asking, sample) for _ in range(times - 1)]
        self._repeat = compare([answered[question.key] for question in sample], passes)

    def _how(self, client: "Client") -> Mapping[str, Asking]:
        """How each task is asked; the same for all servers, so that what one shows about replies holds for all."""
        if self._shared_how is None or not self._sharing.several:
            self._shared_how = {
                task.name: Asking(
                    task.answer_rule,
                    self._max_out_len[task.name],
                    self._reading(task, tls=client.tls),
                    task.examples,
                    self._fewer_examples,
                )
                for task in self.tasks
            }
        return self._shared_how

    async def first_tokens(self, client: "Client", questions: Sequence[Question]) -> list[Reply | None]:
        """Replies of one token; None where there is none.

        Args:
            client: The server.
            questions: A few. Those in flight at a crash are suspects, as always.

        Raises:
            RefusedError: The server refuses every question.
        """

        async def ask(question: Question) -> Reply | None:
            self._suspects.begun(question)
            reply = None
            with contextlib.suppress(NoReplyError):
                reply = await client.ask(question.messages, 1)
            self._suspects.ended(question.key, replied=False)
            return reply

        async with first_fault_only(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(question)) for question in questions]
        return [task.result() for task in tasks]

    @property
    def suspected(self) -> tuple[int, bool]:
        """How many of the unanswered questions may have crashed the server, and whether it did so again on some."""
        groups = self._suspects.apart(self.unanswered)[1]
        return sum(len(group) for group in groups), self._suspects.is_narrowing

    async def _ask_unanswered(
        self, client: "Client", how: Mapping[str, Asking], first: FirstRefusals, *, ours: bool
    ) -> None:
        # Suspects after the others, and group by group: a crash then has no suspects but those of one group.
        together, groups = self._suspects.apart(self.unanswered)
        for number, group in enumerate((together, *groups)):
            questions = [one for one in group if one.key not in self._known]  # another server may have answered it
            window = self._asking.window()
            if self._sharing.several and number == 0:
                self._sharing.pool.add(questions, prefix_order=self._asking.prefix_order)
                queue = self._sharing.queue(0, window)
            else:
                queue = queue_of(questions, window, prefix_order=self._asking.prefix_order)
            await Workers(
                queue,
                client,
                how,
                window=window,
                suspects=self._suspects,
                first=first,
                passing=self._failed_in_passing,
                record=self._record,
            ).ask_all()
            if ours and self._suspects.is_failing:
                await require_working(client, self.questions[0])
                self._suspects.works()

    def _reading(self, task: Task, *, tls: bool) -> EarlyDecisions | None:
        stops = not (self._asking.full_replies or task.name in self._thinks_aloud)
        if task.by_likelihood or not (stops or self._asking.adaptive):
            return None
        has_cut = any(one.decided_early and one.task == task.name for one in self.predictions)
        options = options_of(_known_options(task), (one for one in self.questions if one.task == task.name))
        return EarlyDecisions(task.answer_rule, tls=tls, options=options, has_cut=has_cut, stops=stops)

    def _forget_stopped_by_mistake(self, new: Prediction) -> None:
        """Forget replies that were stopped before text turned out to be thinking, on disk as well."""
        asking = (self._shared_how or {}).get(new.task)
        if asking is None or asking.reading is None:
            return
        stopped = [new] if new.decided_early and new.task in self._thinks_aloud else []
        if asking.reading.mistaken:
            asking.reading.mistaken = False
            self._thinks_aloud.add(new.task)
            stopped = [one for one in self.predictions if one.task == new.task and one.decided_early]
        for one in stopped:
            self._run.append(
                unanswered(self.questions[self._index[one.key]], _STOPPED_BY_MISTAKE, attempts=one.attempts)
            )
        if stopped:
            self._forget({one.key for one in stopped})

    def server_lost(self, *, max_restarts: int = 0) -> AfterCrash:
        """Note that the server crashed or hangs; `ask` may be called again with another one, if the result says so.

        Then questions that failed since the server began to fail are asked again. Questions that crash the server are
        skipped and stay without a reply.

        Args:
            max_restarts: How many crashes without an explanation may be followed by a restart.
        """
        self._sharing.pool.lost(0)
        loss = self._suspects.server_died(max_restarts)
        if loss.goes_on:
            self._forget_failed(loss.failed)
        guilty = [question for question in self.unanswered if question.key in loss.guilty]
        for question in guilty:
            crashes = loss.guilty[question.key]
            self._record(unanswered(question, f"the server crashed on it {crashes} times", attempts=crashes))
        if loss.goes_on and self.unanswered:
            self.restarts += 1
        return AfterCrash(guilty, goes_on=loss.goes_on, counted=self._suspects.counted if loss.counts else None)

    def results(
        self,
        timing: Mapping[str, float],
        scopes: Mapping[str, str] | None = None,
        earlier: Results | None = None,
    ) -> Results:
        """Scores and counts of the outcomes so far.

        Args:
            timing: Seconds by phase.
            scopes: What part of every task that is, by its name; "" for all of it.
            earlier: The results of the sessions before, of a run that is resumed.
        """
        answered = sum(one.error is None for one in self.predictions)
        if earlier is not None and not self.new and self._repeat is None and earlier.coverage.answered == answered:
            return earlier  # nothing was asked, so nothing has changed
        known = {one.key for one in self._run.known if one.error is None}
        keys = [question.key for question in self.questions]
        return Results.of(
            self.tasks,
            keys,
            self.predictions,
            timing=timing,
            server=self._server(),
            health=self.health,
            scopes=scopes or {},
            new_answers=sum(one.error is None and one.key not in known for one in self.predictions) if known else None,
            earlier=earlier,
            request_changes=self._request_changes,
            repeat=self._repeat or (earlier.repeat if earlier is not None else None),
            replicas=self._sharing.to_json() if self._sharing.several else None,
        )

    @property
    def health(self) -> Health:
        """Whether the outcomes so far say something about the model."""
        sent = {one.key: one.messages for one in self.questions}
        return examine({task.name: _known_options(task) for task in self.tasks}, self.predictions, sent)

    def _server(self) -> dict[str, float]:
        server: dict[str, float] = {"restarts": self.restarts} if self.restarts else {}
        if self._cache_hit_rate is not None:
            server["prefix_cache_hit_rate"] = round(self._cache_hit_rate, 4)
        return server

    def _first_refusals(self, *, count_transient: bool) -> FirstRefusals:
        first = FirstRefusals(count_transient=count_transient)
        if any(one.error is None for one in self.predictions):
            first.replied()
        return first

    def _forget(self, keys: Set[Key]) -> None:
        """Have these questions asked again."""
        self._known -= keys
        self.predictions = [one for one in self.predictions if one.key in self._known]

    def _forget_failed(self, keys: Set[Key]) -> None:
        """The same for those of them that no other server has answered meanwhile."""
        self._forget({one.key for one in self.predictions if one.error is not None and one.key in keys})

    def _as_sent(self, question: Question, dropped: int) -> Question:
        examples = self._examples[question.task] - dropped
        if not dropped or self._fewer_examples is None or question.examples <= examples:
            return question
        return self._fewer_examples(question, examples)

    def _record(self, prediction: Prediction, server: int = 0) -> None:
        self._sharing.recorded(server, prediction)
        self._run.append(prediction)
        if prediction.examples_dropped:
            index = self._index[prediction.key]
            self.questions[index] = self._as_sent(self.questions[index], prediction.examples_dropped)
        self.new += 1
        suspects = self._sharing.suspects.get(server, self._suspects)
        suspects.ended(prediction.key, replied=prediction.error is None)
        self._known.add(prediction.key)
        self.predictions.append(prediction)
        self._on_prediction(prediction)
        self._forget_stopped_by_mistake(prediction)


def _known_options(task: Task) -> str:
    return known_options(task.benchmark.name, task.answer_rule.to_json())
