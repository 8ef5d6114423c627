"""Every question to the server, many at once; every reply scored as it arrives."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.evaluation.early_decisions import EarlyDecisions
from bundle.evaluation.prefix_order import Queue
from bundle.evaluation.replies import NoReplyError
from bundle.evaluation.window import Window
from bundle.predictions import Prediction
from bundle.tasks.answers import AnswerRule
from bundle.tasks.catalog import Question

if TYPE_CHECKING:  # the client takes a second to import, and is not needed before there is a server
    from bundle.evaluation.client import ChatClient


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
    on_prediction: Callable[[Prediction], None],
) -> None:
    """Ask every question, as many at a time as the window lets, with no barrier between tasks or subjects.

    Args:
        queue: The questions.
        client: Whom to ask.
        how: For every task's name, how its questions are asked.
        window: How many requests are in flight.
        on_prediction: Called with every question's outcome as it becomes known.

    Raises:
        RefusedError: The server refuses every question.
        BundleError: Whatever ``on_prediction`` raises.
    """
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(window.most):
                workers.create_task(_work(queue, client, how, window, on_prediction))
    except BaseExceptionGroup as group:
        # One fault that ends everything is one fault, however many workers met it.
        raise group.exceptions[0] from None


async def _work(
    queue: Queue,
    client: "ChatClient",
    how: Mapping[str, Asking],
    window: Window,
    on_prediction: Callable[[Prediction], None],
) -> None:
    while True:
        async with window:
            question = await queue.next()
            if question is None:
                return
            try:
                prediction = await _ask(question, client, how[question.task], queue, window)
            finally:
                queue.begun(question)
        on_prediction(prediction)


async def _ask(question: Question, client: "ChatClient", how: Asking, queue: Queue, window: Window) -> Prediction:
    try:
        reply = await client.ask(
            question.messages,
            how.max_out_len,
            reading=how.reading,
            begun=lambda: queue.begun(question),
            busy=window.busy,
        )
    except NoReplyError as failure:
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
            latency_s=round(failure.latency_s, 4),
            attempts=failure.attempts,
            error=failure.reason,
        )
    window.replied(reply.latency_s)
    answer = how.rule.extract(reply.text)
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
