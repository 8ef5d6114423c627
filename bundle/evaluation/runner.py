"""Every question to the server, many at once; every reply scored as it arrives."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.evaluation.replies import NoReplyError
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
    """

    rule: AnswerRule
    max_out_len: int


async def ask_all(
    questions: Iterable[Question],
    client: "ChatClient",
    how: Mapping[str, Asking],
    *,
    concurrency: int,
    on_prediction: Callable[[Prediction], None],
) -> None:
    """Ask every question, ``concurrency`` of them at a time, with no barrier between tasks or subjects.

    Args:
        questions: In the order they are asked.
        client: Whom to ask.
        how: For every task's name, how its questions are asked.
        concurrency: Most requests in flight.
        on_prediction: Called with every question's outcome as it becomes known.

    Raises:
        RefusedError: The server refuses every question.
        BundleError: Whatever ``on_prediction`` raises.
    """
    queue = iter(questions)
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(_work(queue, client, how, on_prediction))
    except BaseExceptionGroup as group:
        # One fault that ends everything is one fault, however many workers met it.
        raise group.exceptions[0] from None


async def _work(
    queue: Iterator[Question],
    client: "ChatClient",
    how: Mapping[str, Asking],
    on_prediction: Callable[[Prediction], None],
) -> None:
    for question in queue:
        on_prediction(await _ask(question, client, how[question.task]))


async def _ask(question: Question, client: "ChatClient", how: Asking) -> Prediction:
    try:
        reply = await client.ask(question.messages, how.max_out_len)
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
        decided_early=False,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        latency_s=round(reply.latency_s, 4),
        attempts=reply.attempts,
        thinking=reply.thinking,
    )
