"""What follows from the loss of a server."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundle.errors import ServerError
from bundle.pipeline.targets import Prepared
from bundle.reports.screen.console import Screen
from bundle.system.text import plural

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.evaluation import Evaluation


async def goes_on_after(
    trouble: ServerError,
    model: Prepared,
    evaluation: "Evaluation",
    screen: Screen,
    helping: Sequence[asyncio.Task[None]],
) -> bool:
    """Say what happened to the server and what becomes of its questions; whether there are any for the next one.

    Raises the trouble if there are, but this was the last one.
    """
    suspected_before = evaluation.suspected
    loss = evaluation.server_lost(max_restarts=model.max_restarts)
    for question in loss.guilty:
        screen.say(f"skipping {question.subject} #{question.id}: it keeps crashing the server")
    left = len(evaluation.unanswered)
    if left and not loss.goes_on:
        if helping:
            screen.say(f"{trouble.message} Going on with the other servers")
            drained = asyncio.ensure_future(evaluation.others_done())
            given_up = asyncio.ensure_future(asyncio.wait(helping))
            await asyncio.wait([drained, given_up], return_when=asyncio.FIRST_COMPLETED)
            given_up.cancel()
            drained.cancel()
        if evaluation.unanswered:
            raise trouble
        return False
    screen.say(trouble.message)
    if left:
        why = f"{loss.counted} of {model.max_restarts}" if loss.counted else "to find the question that crashes it"
        screen.say(f"restarting the server ({why}): {plural(left, 'question')} left")
    suspected, again = evaluation.suspected
    if (suspected, again) == suspected_before:
        return left > 0  # nothing new, as where it did not come up again
    if suspected and again:
        screen.say(f"{plural(suspected, 'question')} may be crashing it; asking them last, in small groups")
    elif suspected:
        screen.say(
            f"{plural(suspected, 'question was', 'questions were')} in flight; asking them again after the others"
        )
    return left > 0
