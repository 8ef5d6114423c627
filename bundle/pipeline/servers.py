"""The servers of a run: what follows from the loss of the first, the further ones beside it, and their GPUs' load."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from bundle.errors import ServerError
from bundle.pipeline.targets import Prepared
from bundle.reports.screen.console import Screen
from bundle.runs.files import SERVER_LOGS
from bundle.runs.gpu_load import GpuLoad, append_gpu_loads
from bundle.runs.run import Run
from bundle.serving.gpu_load import Load, watch
from bundle.system.text import plural

if TYPE_CHECKING:  # slow to import, and the servers should start first
    from bundle.client import Client
    from bundle.evaluation import Evaluation


class PrefixedScreen(Screen):
    """Shows what one of several says under its name, and not what its server does while it starts."""

    def __init__(self, screen: Screen, name: str) -> None:
        super().__init__()
        self._screen = screen
        self._name = name

    def say(self, text: str) -> None:
        self._screen.say(f"{self._name}: {text}")

    def server(self, activity: str) -> None:
        """Its start is like that of the first."""


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
            screen.say(f"{trouble.message} Continuing with the other servers")
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
        screen.say(f"{plural(suspected, 'question was', 'questions were')} in flight; asking again after the others")
    return left > 0


async def help_asking(
    number: int, model: Prepared, begun: "asyncio.Future[Evaluation]", run: Run, screen: Screen
) -> None:
    """Serve the model once more and have it asked, again after each death of the server, until cancelled.

    A server that dies too often is given up: the others go on without it. They are numbered from 1. ``begun`` has a
    result once the first server has been proved, and questions are about to be asked.
    """
    helper, deaths = model.helpers[number - 1], 0
    log = run.directory / SERVER_LOGS / f"{number + 1}.log"
    log.parent.mkdir(exist_ok=True)

    async def ask(evaluation: "Evaluation", client: "Client") -> None:
        client.send_always(model.extra_body)
        async with client:
            await evaluation.help_asking(number, client)

    while True:
        evaluation: Evaluation | None = None
        try:
            async with helper.serve(log, asyncio.Event()) as server:
                evaluation = await asyncio.shield(begun)
                trouble = await server.attend(ask(evaluation, server.client))
        except ServerError as error:
            trouble = error
        if trouble is None:
            return
        left = 0 if evaluation is None else evaluation.helper_lost(number)
        again = f"; {plural(left, 'question')} in flight will be asked last" if left else ""
        deaths += 1
        if deaths > helper.max_restarts:
            screen.say(f"server {number + 1}: {trouble.message} Continuing without it{again}")
            return
        screen.say(f"server {number + 1}: {trouble.message} Restarting it ({deaths} of {helper.max_restarts}){again}")


async def note_gpu_loads(model: Prepared, begun: "asyncio.Future[Evaluation]", run: Run) -> None:
    """Write down how busy the GPUs are while questions are asked, until cancelled."""
    gpus = [gpu for one in (model, *model.helpers) for gpu in one.gpus]

    def write(loads: Sequence[Load]) -> None:
        now = time.time()
        append_gpu_loads(run.directory, [GpuLoad(at=now, **asdict(one)) for one in loads])

    if gpus:
        await asyncio.shield(begun)
        await watch(gpus, write)
