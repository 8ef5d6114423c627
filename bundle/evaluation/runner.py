"""Every question to the server, many at once; every reply scored as it arrives."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from bundle.evaluation.client import ChatClient, NoReplyError
from bundle.runs import Prediction
from bundle.tasks.answers import extract
from bundle.tasks.catalog import Question


async def ask_all(
    questions: Iterable[Question],
    client: ChatClient,
    answer_rule: str,
    *,
    concurrency: int,
    on_prediction: Callable[[Prediction], None],
) -> None:
    """Ask every question, ``concurrency`` of them at a time, with no barrier between subjects.

    Args:
        questions: In the order they are asked.
        client: Whom to ask.
        answer_rule: Name of the rule that finds the answer in a reply.
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
                workers.create_task(_work(queue, client, answer_rule, on_prediction))
    except BaseExceptionGroup as group:
        # One fault that ends everything is one fault, however many workers met it.
        raise group.exceptions[0] from None


async def _work(
    queue: Iterator[Question], client: ChatClient, answer_rule: str, on_prediction: Callable[[Prediction], None]
) -> None:
    for question in queue:
        on_prediction(await _ask(question, client, answer_rule))


async def _ask(question: Question, client: ChatClient, answer_rule: str) -> Prediction:
    try:
        reply = await client.ask(question.messages)
    except NoReplyError as failure:
        return Prediction(
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
    answer = extract(answer_rule, reply.text)
    return Prediction(
        subject=question.subject,
        id=question.id,
        reply=reply.text,
        answer=answer,
        gold=question.gold,
        correct=answer == question.gold,
        finish_reason=reply.finish_reason,
        decided_early=False,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        latency_s=round(reply.latency_s, 4),
        attempts=reply.attempts,
    )
