"""Asks many questions at once, and scores every reply as it arrives."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from bundle.client import EarlyDecisions, NoReplyError, RefusedError, Reply
from bundle.errors import AnswerError, ServerError
from bundle.evaluation._leases import Pool
from bundle.evaluation._likelihood import option_losses
from bundle.evaluation._suspects import Suspects
from bundle.evaluation._window import Window
from bundle.runs.no_reply import Cause, cause_of, kind_of
from bundle.runs.predictions import Prediction
from bundle.tasks.answers import AnswerRule, Likeliest
from bundle.tasks.catalog import Question
from bundle.tasks.prompts import trivial
from bundle.tasks.scores import Key

if TYPE_CHECKING:  # imported late: slow, and a local server should start first
    from bundle.client import Client, Reply

_FEWEST_FAILURES = 32
_ROUNDS_OF_FAILURES = 2
"""All requests in flight may fail in a short outage; if those after them fail as well, it is not a short one."""
_FIRST_REFUSALS = 10
_NAMED = frozenset({Cause.TOO_LONG, Cause.TEMPLATE, Cause.MODEL, Cause.SETTING})
_KEPT = "The answers so far are kept; continue with `bundle resume`."


class FailingServerError(ServerError):
    """A server that is running but does not reply."""


@dataclass(frozen=True, slots=True)
class AskingOptions:
    """How questions are asked.

    Attributes:
        concurrency: Maximum concurrent requests.
        adaptive: Whether to find out how many the server can handle; False for always that many.
        full_replies: Whether replies are read to their end, even if their answer is final before.
        prefix_order: Whether they are ordered so that the server's prefix cache helps.
    """

    concurrency: int
    adaptive: bool
    full_replies: bool
    prefix_order: bool

    def window(self) -> Window:
        """Limits the requests to a server."""
        return Window(self.concurrency, adaptive=self.adaptive)


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions of one task are asked.

    Attributes:
        rule: What counts as the answer in a reply.
        max_out_len: Maximum tokens per reply.
        reading: Decides when a reply need not be read to its end; None to read all of them whole.
        examples: How many examples every question has unless it is too long.
        fewer_examples: Makes a question with so many examples; None if that cannot be done.
    """

    rule: AnswerRule
    max_out_len: int
    reading: EarlyDecisions | None
    examples: int = 0
    fewer_examples: Callable[[Question, int], Question] | None = None


class FirstRefusals:
    """Notices when the first questions of a run all meet the same refusal, so that the rest need not be asked.

    With ``count_transient`` faults count as well that remained after all retries; they may be over later. ``replied``
    says that there have been replies before.
    """

    def __init__(self, *, count_transient: bool, replied: bool = False) -> None:
        self._count_transient = count_transient
        self._kinds: set[str] | None = None if replied else set()
        self._count = 0

    def replied(self) -> None:
        """Note that a question has had a reply."""
        self._kinds = None

    def refused(self, failure: NoReplyError) -> None:
        """Note that a question has had none. Raises RefusedError if none of the first has, all for the same reason."""
        if self._kinds is None or (failure.transient and not self._count_transient):
            return
        self._count += 1
        self._kinds.add(kind_of(failure.reason))
        if len(self._kinds) == 1 and self._count >= _FIRST_REFUSALS:
            cause = cause_of(failure.reason)
            raise RefusedError(
                f"The first {self._count} questions got no reply, all for the same reason: {failure.reason}.",
                remedy=cause.remedy if cause in _NAMED else "Fix the cause, then continue with `bundle resume`.",
            )


async def require_working(client: "Client", like: Question) -> "Reply":
    """The reply to something that every model can reply to, asked in the way in which a question is.

    Raises FailingServerError if it does not reply.
    """
    try:
        return await client.ask(trivial(like.messages), 1)
    except NoReplyError as failure:
        raise FailingServerError(f"Every request failed: {failure.reason}.", remedy=_KEPT) from None


@dataclass(slots=True)
class Workers:
    """Take the questions of a server from a pool, each worker one at a time, until nothing is left for any server.

    ``how`` has how a task's questions are asked, by its name. Those without a reply for a reason that may pass go to
    ``passing``; ``record`` is called with every outcome as soon as it is known.
    """

    pool: Pool
    server: int
    client: "Client"
    how: Mapping[str, Asking]
    window: Window
    first: FirstRefusals
    record: Callable[[Prediction], None]
    suspects: Suspects = field(default_factory=Suspects)
    passing: set[Key] = field(default_factory=set)
    _failed_in_a_row: int = 0
    _in_flight: int = 0
    _working: dict[Key, "asyncio.Task[None]"] = field(default_factory=dict)
    _called_off: set[Key] = field(default_factory=set)

    async def ask_all(self) -> None:
        """Ask every question, as many at once as the window allows, with no barrier between tasks or subjects.

        Raises RefusedError if the server refuses every question, FailingServerError if too many in a row failed, and
        whatever ``record`` raises.
        """
        try:
            self.pool.when_called_off(self.server, self._call_off)
            async with asyncio.TaskGroup() as group:
                for _ in range(self.window.most):
                    group.create_task(self._work())
        except BaseExceptionGroup as faults:
            # One fault that ends the run is one fault, however many workers met it.
            raise faults.exceptions[0] from None

    async def _work(self) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        while True:
            async with self.window:
                question = await self.pool.next(self.server, self.window.limit)
                if question is None:
                    return
                self.suspects.begun(question)
                outcome = await self._ask_unless_called_off(question, task)
            if outcome is None:
                self.suspects.ended(question.key, replied=False)
                continue
            if isinstance(outcome, Prediction):
                self.record(outcome)
                self.pool.ended(self.server, question.key)
                continue
            self.record(unanswered(question, outcome.reason, attempts=outcome.attempts, latency_s=outcome.latency_s))
            self.pool.ended(self.server, question.key)
            self.first.refused(outcome)
            if self._failed_in_a_row >= max(_FEWEST_FAILURES, _ROUNDS_OF_FAILURES * self.window.most):
                raise FailingServerError(
                    f"The last {self._failed_in_a_row} questions got no reply: {outcome.reason}.", remedy=_KEPT
                )

    async def _ask_unless_called_off(
        self, question: Question, task: "asyncio.Task[None]"
    ) -> Prediction | NoReplyError | None:
        """Ask; None where another server's outcome counts, which was asked as well because this one was silent."""
        self._working[question.key] = task
        try:
            outcome = await self._ask(question, self.how[question.task])
        except asyncio.CancelledError:
            if question.key not in self._called_off or task.uncancel():
                raise
            return None
        finally:
            del self._working[question.key]
            if question.key in self._called_off:
                self._called_off.remove(question.key)
            else:
                self.pool.read(self.server, question.key)
        if isinstance(outcome, NoReplyError) and self.pool.is_asked_elsewhere(self.server, question.key):
            return None
        return outcome

    def _call_off(self, key: Key) -> None:
        if (task := self._working.get(key)) is not None:  # else this server is being given up
            self._called_off.add(key)
            task.cancel()

    async def _ask(self, question: Question, how: Asking) -> Prediction | NoReplyError:
        """Ask; where the server finds a question too long, ask it with one example fewer, as long as it has any."""
        attempts = 0
        while True:
            outcome = await self._ask_as_it_is(question, how, attempts)
            is_too_long = isinstance(outcome, NoReplyError) and outcome.too_long
            if not is_too_long or not question.examples or how.fewer_examples is None:
                return outcome
            attempts += outcome.attempts
            question = how.fewer_examples(question, question.examples - 1)

    async def _ask_as_it_is(self, question: Question, how: Asking, attempts: int) -> Prediction | NoReplyError:
        self._in_flight += 1
        in_flight_before = self._in_flight
        has_begun = False
        losses: dict[str, float] | None = None

        def begun() -> None:
            nonlocal has_begun
            self.pool.read(self.server, question.key)
            if not has_begun:
                has_begun = True
                self.window.begun()

        try:
            if how.reading is None and isinstance(how.rule, Likeliest):
                losses, reply = await option_losses(self.client, question, how.rule, self.window.busy)
            else:
                reply = await self.client.ask(
                    question.messages,
                    min(how.max_out_len, question.max_reply or how.max_out_len),
                    reading=how.reading,
                    begun=begun,
                    busy=self.window.busy,
                )
        except NoReplyError as failure:
            if failure.transient:
                self._failed_in_a_row += 1
                self.passing.add(question.key)
                self.suspects.failing(question)
            return failure
        finally:
            in_flight = (in_flight_before + self._in_flight) / 2
            self._in_flight -= 1
            if has_begun:
                self.window.ended()
        self._failed_in_a_row = 0
        self.first.replied()
        self.window.replied(reply.latency_s, in_flight)
        return _outcome(question, how, reply, attempts + reply.attempts, losses)


def _outcome(
    question: Question, how: Asking, reply: Reply, attempts: int, losses: dict[str, float] | None
) -> Prediction:
    try:
        answer = how.rule.extract(reply.text)
    except AnswerError as error:
        return unanswered(question, error.message, attempts=attempts, latency_s=reply.latency_s)
    return Prediction(
        *question.key,
        reply=reply.text,
        answer=answer,
        gold=question.gold,
        correct=answer == question.gold if question.gold else None,
        finish_reason=reply.finish_reason,
        decided_early=reply.decided_early,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        latency_s=round(reply.latency_s, 4),
        attempts=attempts,
        cached_tokens=reply.cached_tokens,
        thinking=reply.thinking,
        chunks=reply.chunks,
        examples_dropped=(how.examples - question.examples) or None,
        losses=losses,
        model=reply.model,
        ended_at=round(time.time(), 3),
    )


def unanswered(question: Question, reason: str, *, attempts: int, latency_s: float = 0.0) -> Prediction:
    """The outcome of a question without a reply, which is not a wrong answer."""
    return Prediction(
        *question.key,
        reply=None,
        answer=None,
        gold=question.gold,
        correct=None,
        finish_reason=None,
        decided_early=False,
        prompt_tokens=None,
        completion_tokens=None,
        latency_s=round(latency_s, 4),
        attempts=attempts,
        error=reason,
    )
