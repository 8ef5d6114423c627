"""The questions of one run and their outcomes, from which results follow at any moment."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING

from bundle.client import EarlyDecisions, NoReplyError, Reply
from bundle.evaluation._asking import Asking, AskingOptions, FirstRefusals, Workers, require_working, unanswered
from bundle.evaluation._leases import Pool
from bundle.evaluation._outcomes import Outcomes
from bundle.evaluation._repeats import ask_again, compare, spread_over_subjects
from bundle.evaluation._suspects import Loss, Suspects
from bundle.runs.predictions import Prediction
from bundle.runs.results import Coverage, Repeat, Results, Review
from bundle.runs.run import Run
from bundle.runs.scoring import score_run
from bundle.system.background import first_fault_only
from bundle.tasks.catalog import Question, Task
from bundle.tasks.options import options_of
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key, Part

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
        shortened: Whether some were sent with fewer examples than planned.
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
        self.questions = list(questions)
        self.shortened = False
        self._outcomes = Outcomes(self.questions)
        self._run = run
        self._on_prediction = on_prediction
        self.restarts = 0
        self.new = 0
        self._cache_hit_rate: float | None = None
        self._request_changes: list[str] = []
        self._repeat: Repeat | None = None
        for number, one in enumerate(run.rows() if run.known else ()):
            if self._outcomes.place(key := one.key) is not None:
                self._outcomes.add(key, one, number, server=None)
                self._note_as_sent(one)
        self._reviewed: Review | None = None
        self._failed_in_passing: set[Key] = set()
        self._pool = Pool(servers)
        self._suspects = [Suspects() for _ in range(servers)]
        self._shared_how: Mapping[str, Asking] | None = None
        self._thinks_aloud: set[str] = set()

    @property
    def unanswered(self) -> Sequence[Question]:
        """The questions still to be asked, or to be asked again after a crash of the server."""
        return self._outcomes.without

    @property
    def known(self) -> int:
        """How many questions have an outcome."""
        return self._outcomes.known

    @property
    def predictions(self) -> Iterator[Prediction]:
        """The outcomes so far, one per question, from the run's file."""
        return self._run.rows(self._outcomes.rows()) if self.known else iter(())

    @property
    def in_flight(self) -> int:
        """How many questions wait for their reply."""
        return sum(suspects.in_flight for suspects in self._suspects)

    async def ask(self, client: "Client", *, ours: bool = False) -> None:
        """Ask the unanswered questions.

        With ``ours`` the server can be restarted. Then it is sent a test request if the last question failed, or one
        that was asked alone: it may be the server that fails. Raises RefusedError if the server refuses every question,
        FailingServerError if too many in a row failed, RunError if an outcome cannot be written.
        """
        how = self._how(client)
        first = FirstRefusals(count_transient=not ours, replied=self._outcomes.answered > 0)
        try:
            # More than once: what another server has lost meanwhile is asked here, and what was stopped by mistake.
            while self.unanswered:
                await self._ask_unanswered(client, how, first, ours=ours)
        finally:
            self._request_changes = list(dict.fromkeys([*self._request_changes, *client.changes]))
        self._run.flush()
        self._cache_hit_rate = self._outcomes.share_of_cached
        if self._cache_hit_rate is None:
            self._cache_hit_rate = await client.prefix_cache_hit_rate()

    async def help_asking(self, server: int, client: "Client") -> None:
        """Ask the questions that fall to another server (numbered from 1) than that of `ask`, until it is cancelled.

        Raises what `ask` does.
        """
        while True:
            await self._pool.has_work.wait()
            first = FirstRefusals(count_transient=False, replied=self._outcomes.answered > 0)
            await self._ask_from(self._pool, server, client, self._how(client), first)

    def helper_lost(self, server: int) -> int:
        """Note that a server of `help_asking` crashed or hangs: what it had in flight is asked by `ask`, last.

        Returns how many questions that is.
        """
        in_flight = [question.key for question in self._pool.lost(server)]
        self._forget_failed(self._suspects[server].server_died(0).failed)
        self._suspects[server] = Suspects()
        self._suspects[0].suspect(in_flight)
        return len(in_flight)

    async def others_done(self) -> None:
        """Wait until the other servers have nothing left."""
        await self._pool.is_drained.wait()

    def forget_failed_in_passing(self) -> int:
        """Have what failed for a reason that may have passed asked once more by `ask`; return how many that is."""
        forgotten, self._failed_in_passing = self._failed_in_passing, set()
        self._forget(forgotten)
        return len(forgotten)

    async def repeat(self, client: "Client", times: int) -> None:
        """Ask a sample of the answered questions again and compare the replies; no score changes.

        Each is asked so many times in all, counting the one before. Raises RefusedError if the server refuses every
        question, FailingServerError if too many in a row failed.
        """
        sample = spread_over_subjects(self._outcomes.with_reply())
        rows = self._outcomes.rows(question.key for question in sample)
        answered = {one.key: one for one in self._run.rows(rows)}
        how = self._how(client)
        passes = [await ask_again(client, how, self._asking, sample) for _ in range(times - 1)]
        self._repeat = compare([answered[question.key] for question in sample], passes)

    def _how(self, client: "Client") -> Mapping[str, Asking]:
        """How each task is asked; the same for all servers, so that what one shows about replies holds for all."""
        if self._shared_how is None or len(self._suspects) == 1:
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

        The questions are few. Those in flight at a crash are suspects, as always. Raises RefusedError if the server
        refuses every question, FailingServerError if it replies to nothing.
        """

        async def ask(question: Question) -> Reply | None:
            self._suspects[0].begun(question)
            reply = None
            with contextlib.suppress(NoReplyError):
                reply = await client.ask(question.messages, 1)
            self._suspects[0].ended(question.key, replied=False)
            return reply

        async with first_fault_only(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(question)) for question in questions]
        replies = [task.result() for task in tasks]
        if not any(replies):
            await self.first_token(client)
        return replies

    async def first_token(self, client: "Client") -> Reply:
        """The reply, of one token, to something that every model can reply to. Raises FailingServerError if none."""
        return await require_working(client, self.questions[0])

    @property
    def suspected(self) -> tuple[int, bool]:
        """How many of the unanswered questions may have crashed the server, and whether it did so again on some."""
        groups = self._suspects[0].apart(self.unanswered)[1]
        return sum(len(group) for group in groups), self._suspects[0].is_narrowing

    async def _ask_unanswered(
        self, client: "Client", how: Mapping[str, Asking], first: FirstRefusals, *, ours: bool
    ) -> None:
        # Suspects after the others, and group by group: a crash then has no suspects but those of one group.
        together, groups = self._suspects[0].apart(self.unanswered)
        for number, group in enumerate((together, *groups)):
            questions = [one for one in group if one.key not in self._outcomes]  # another server may have answered it
            pool = Pool(1) if number else self._pool
            pool.add(questions, prefix_order=self._asking.prefix_order)
            await self._ask_from(pool, 0, client, how, first)
            if ours and self._suspects[0].is_failing:
                await require_working(client, self.questions[0])
                self._suspects[0].works()

    async def _ask_from(
        self, pool: Pool, server: int, client: "Client", how: Mapping[str, Asking], first: FirstRefusals
    ) -> None:
        await Workers(
            pool,
            server,
            client,
            how,
            window=self._asking.window(),
            suspects=self._suspects[server],
            first=first,
            passing=self._failed_in_passing,
            record=partial(self.record, server=server),
        ).ask_all()

    def _reading(self, task: Task, *, tls: bool) -> EarlyDecisions | None:
        stops = not (self._asking.full_replies or task.name in self._thinks_aloud)
        if task.by_likelihood or not (stops or self._asking.adaptive):
            return None
        has_cut = any(self._outcomes.stopped(task.name))
        return EarlyDecisions(task.answer_rule, tls=tls, options=self._options(task), has_cut=has_cut, stops=stops)

    def _forget_stopped_by_mistake(self, new: Prediction) -> None:
        """Forget replies that were stopped before text turned out to be thinking, on disk as well.

        Another server may still bring some once that is known.
        """
        asking = (self._shared_how or {}).get(new.task)
        if asking is not None and asking.reading is not None and asking.reading.mistaken:
            asking.reading.mistaken = False
            self._thinks_aloud.add(new.task)
        elif not (new.decided_early and new.task in self._thinks_aloud):
            return
        stopped = list(self._outcomes.stopped(new.task))
        for question, attempts in stopped:
            self._run.append(unanswered(question, _STOPPED_BY_MISTAKE, attempts=attempts))
        self._forget([question.key for question, _ in stopped])

    def server_lost(self, *, max_restarts: int = 0) -> Loss:
        """Note that the server crashed or hangs; `ask` may be called again with another one, if the result says so.

        Then questions that failed since the server began to fail are asked again. Questions that crash the server are
        skipped and stay without a reply. At most ``max_restarts`` crashes without an explanation may be followed by a
        restart.
        """
        self._pool.lost(0)
        loss = self._suspects[0].server_died(max_restarts)
        if loss.goes_on:
            self._forget_failed(loss.failed)
        for question in [one for one in self.unanswered if one.key in loss.guilty]:
            crashes = loss.guilty[question.key]
            self.record(unanswered(question, f"the server crashed on it {crashes} times", attempts=crashes))
        if loss.goes_on and self.unanswered:
            self.restarts += 1
        return loss

    def results(
        self,
        timing: Mapping[str, float],
        scopes: Mapping[str, str] | None = None,
        earlier: Results | None = None,
    ) -> Results:
        """Scores and counts of the outcomes so far; ``timing`` in seconds by phase.

        ``scopes`` says what part of every task that is, by its name, "" for all of it. ``earlier`` are the results of
        the sessions before, of a run that is resumed.
        """
        answered = self._outcomes.answered
        if earlier is not None and not self.new and self._repeat is None and earlier.coverage.answered == answered:
            return earlier  # nothing was asked, so nothing has changed
        review, changes, restarts = self.review, self._request_changes, self.restarts
        timed = self._outcomes.new_answers if self._run.known else answered
        if earlier is not None:
            timed += earlier.coverage.answered if earlier.timed_answers is None else earlier.timed_answers
            phases = {**earlier.timing, **timing}
            timing = {phase: earlier.timing.get(phase, 0) + timing.get(phase, 0) for phase in phases}
            changes = list(dict.fromkeys([*earlier.request_changes, *changes]))
            restarts += int(earlier.server.get("restarts", 0))
        server: dict[str, float] = {"restarts": restarts} if restarts else {}
        if self._cache_hit_rate is not None:
            server["prefix_cache_hit_rate"] = round(self._cache_hit_rate, 4)
        return Results(
            scores=score_run(self.tasks, self.asked, review.tally),
            coverage=Coverage(total=self.asked.total(), answered=answered, failed=review.tally.failed),
            timing={phase: round(seconds, 3) for phase, seconds in timing.items()},
            tokens=review.tokens.to_json(),
            server=server,
            request_changes=changes,
            timed_answers=min(timed, answered),
            sessions=1 if earlier is None else earlier.sessions + 1,
            health=review.health.to_json(),
            partial={name: text for name, text in (scopes or {}).items() if text} or None,
            repeat=self._repeat or (earlier.repeat if earlier is not None else None),
            replicas=self._outcomes.by_server(servers) if (servers := len(self._suspects)) > 1 else None,
        )

    @property
    def asked(self) -> Counter[Part]:
        """How many questions every part has."""
        return self._outcomes.asked

    @property
    def review(self) -> Review:
        """What the outcomes so far, as they are on the disk, come to. All are read again if there are new ones."""
        if self._reviewed is None:
            options = {task.name: self._options(task) for task in self.tasks}
            self._reviewed = Review.of(options, self.predictions, self._sent)
        return self._reviewed

    def _options(self, task: Task) -> str:
        golds = (one.gold for one in self.questions if one.task == task.name)
        return options_of(task.benchmark.name, task.answer_rule.to_json(), golds)

    def _sent(self, key: Key) -> Sequence[Message] | None:
        place = self._outcomes.place(key)
        return None if place is None else self.questions[place].messages

    def _forget(self, keys: Iterable[Key]) -> None:
        """Have these questions asked again."""
        self._outcomes.forget(keys)
        self._reviewed = None

    def _forget_failed(self, keys: Set[Key]) -> None:
        """The same for those of them that no other server has answered meanwhile."""
        self._forget(self._outcomes.failed(keys))

    def _note_as_sent(self, one: Prediction) -> None:
        """Keep a question as it was sent, where that was with fewer examples than planned."""
        if not one.examples_dropped or (place := self._outcomes.place(one.key)) is None:
            return
        question, self.shortened = self.questions[place], True
        examples = self._examples[question.task] - one.examples_dropped
        if self._fewer_examples is not None and question.examples > examples:
            self.questions[place] = self._fewer_examples(question, examples)

    def record(self, prediction: Prediction, server: int = 0) -> None:
        """Write down the outcome of a question that this server was asked, and count it.

        Raises RunError if it cannot be written.
        """
        self._outcomes.add(prediction.key, prediction, self._run.append(prediction), server)
        self._reviewed = None
        self._note_as_sent(prediction)
        self.new += 1
        self._suspects[server].ended(prediction.key, replied=prediction.error is None)
        self._on_prediction(prediction)
        self._forget_stopped_by_mistake(prediction)
