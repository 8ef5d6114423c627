"""Checkpoints of a training that goes on, each as soon as it has been written to its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from bundle.checkpoints import inspect_checkpoint
from bundle.errors import CheckpointError
from bundle.pipeline.checkpoint_folder import Model, Shape, checkpoints_in, shape
from bundle.system.background import in_thread

_LOOK_EVERY_S = 5.0
STILL_S = 30.0
"""Nothing of a checkpoint has changed for so long. Trainers write file after file, and pause for less."""


async def appearing(
    folder: Path,
    until: str | None,
    say: Callable[[str], None],
    *,
    still_s: float = STILL_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Model]:
    """Every checkpoint in a folder, once it is whole and nothing of it has changed for ``still_s`` seconds.

    ``until`` is the last checkpoint's name, None to go on for ever; ``pause`` waits between two looks.
    """
    changed: dict[Path, tuple[Shape, float]] = {}
    settled: dict[Path, Shape | None] = {}
    while True:
        for path in checkpoints_in(folder):
            if settled.get(path, frozenset()) is None:
                continue  # handed out already
            now = _shape(path)
            if now is None or settled.get(path) == now:
                continue
            if path not in changed or changed[path][0] != now:
                changed[path] = now, clock()
            elif clock() - changed[path][1] >= still_s:
                settled[path] = now
                if await _is_whole(path, say) and _shape(path) == now:
                    settled[path] = None
                    yield Model(path.name, path)
        if any(path.name == until for path, left in settled.items() if left is None):
            return
        await pause(_LOOK_EVERY_S)


async def _is_whole(path: Path, say: Callable[[str], None]) -> bool:
    try:
        await in_thread(lambda: inspect_checkpoint(path))
    except CheckpointError as error:
        say(f"{path.name}: not evaluated unless it changes: {error}")
        return False
    return True


def _shape(path: Path) -> Shape | None:
    try:
        return shape(path)
    except OSError:
        return None  # it is being renamed or removed
