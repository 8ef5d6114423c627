"""Every question to the server, many at once; every reply scored as it arrives."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.client.early_decisions import EarlyDecisions
from bundle.client.replies import NoReplyError
from bundle.errors import AnswerError, ServerError
from bundle.evaluation.prefix_order import Queue
from bundle.evaluation.window import Window
from bundle.runs.predictions import Prediction
from bundle.tasks.answers import AnswerRule
from bundle.tasks.catalog import Question

if TYPE_CHECKING:  # the client takes a second to import, and is not needed before there is a server
    from bundle.client.client import ChatClient


_FEWEST_FAILURES = 32
_ROUNDS_OF_FAILURES = 2
"""All that is in flight may fail in a short outage; when what comes after it fails as well, it is not a short one."""


class FailingServerError(ServerError):
    """A server that is there and brings no replies."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions of one task are asked.

    Attributes:
        rule: What counts as the answer in a reply.
        max_out_len: Most tokens a reply may have.
        reading: Says when a reply need not be read to its end; None to read all of them whole.
    """

    rule: AnswerRule
    max_out_len: int
    reading: EarlyDecisions | None


async def ask_all(
    queue: Queue,
    client: "ChatClient",
    how: Mapping[str, Asking],
    *,
    window: Window,
    on_begin: Callable[[Question], None],
    on_failing: Callable[[Question], None],
    on_prediction: Callable[[Prediction], None],
) -> None:
    """Ask every question, as many at a time as the window lets, with no barrier between tasks or subjects.

    Args:
        queue: The questions.
        client: Whom to ask.
        how: For every task's name, how its questions are asked.
        window: How many requests are in flight.
        on_begin: Called with every question before it is asked.
        on_failing: Called with a question that is given up for a fault that is the server's and not the question's.
        on_prediction: Called with every question's outcome as it becomes known.

    Raises:
        RefusedError: The server refuses every question.
        FailingServerError: The server fails one question after the other.
        BundleError: Whatever ``on_prediction`` raises.
    """
    work = _Work(queue, client, how, window, on_begin, on_failing, on_prediction)
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(window.most):
                workers.create_task(work.ask_on())
    except BaseExceptionGroup as group:
        # One fault that ends everything is one fault, however many workers met it.
        raise group.exceptions[0] from None


async def require_working(client: "ChatClient") -> None:
    """Ask the server something that every model has a reply to.

    Raises:
        FailingServerError: There is none.
    """
    try:
        await client.ask([{"role": "user", "content": "1"}], 1)
    except NoReplyError as failure:
        raise FailingServerError(
            f"The server fails whatever it is asked: {failure.reason}.",
            remedy="Look at what the server says of it; what has been answered is kept, see --resume.",
        ) from None


class _Work:
    """What all workers share."""

    def __init__(
        self,
        queue: Queue,
        client: "ChatClient",
        how: Mapping[str, Asking],
        window: Window,
        on_begin: Callable[[Question], None],
        on_failing: Callable[[Question], None],
        on_prediction: Callable[[Prediction], None],
    ) -> None:
        self._queue = queue
        self._client = client
        self._how = how
        self._window = window
        self._on_begin = on_begin
        self._on_failing = on_failing
        self._on_prediction = on_prediction
        self._failed_in_a_row = 0
        self._in_flight = 0

    async def ask_on(self) -> None:
        """Ask one question after the other until there are no more."""
        while True:
            async with self._window:
                question = await self._queue.next()
                if question is None:
                    return
                self._on_begin(question)
                try:
                    prediction = await self._ask(question, self._how[question.task])
                finally:
                    self._queue.begun(question)
            self._on_prediction(prediction)
            if self._failed_in_a_row >= max(_FEWEST_FAILURES, _ROUNDS_OF_FAILURES * self._window.most):
                raise FailingServerError(
                    f"The server fails one question after the other, {self._failed_in_a_row} by now; the last: "
                    f"{prediction.error}.",
                    remedy="Look at what the server says of it; what has been answered is kept, see --resume.",
                )

    async def _ask(self, question: Question, how: Asking) -> Prediction:
        self._in_flight += 1
        in_flight_before = self._in_flight
        try:
            reply = await self._client.ask(
                question.messages,
                how.max_out_len,
                reading=how.reading,
                begun=lambda: self._queue.begun(question),
                busy=self._window.busy,
            )
        except NoReplyError as failure:
            if failure.passing:
                self._failed_in_a_row += 1
                self._on_failing(question)
            return unanswered(question, failure.reason, attempts=failure.attempts, latency_s=failure.latency_s)
        finally:
            in_flight = (in_flight_before + self._in_flight) / 2
            self._in_flight -= 1
        self._failed_in_a_row = 0
        self._window.replied(reply.latency_s, in_flight)
        try:
            answer = how.rule.extract(reply.text)
        except AnswerError as error:
            return unanswered(question, error.message, attempts=reply.attempts, latency_s=reply.latency_s)
        return Prediction(
            task=question.task,
            split=question.split,
            subject=question.subject,
            id=question.id,
            reply=reply.text,
            answer=answer,
            gold=question.gold,
            correct=answer == question.gold if question.gold else None,
            finish_reason=reply.finish_reason,
            decided_early=reply.decided_early,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            latency_s=round(reply.latency_s, 4),
            attempts=reply.attempts,
            cached_tokens=reply.cached_tokens,
            thinking=reply.thinking,
        )


def unanswered(question: Question, reason: str, *, attempts: int, latency_s: float = 0.0) -> Prediction:
    """The outcome of a question without a reply, which is not a wrong answer."""
    return Prediction(
        task=question.task,
        split=question.split,
        subject=question.subject,
        id=question.id,
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
