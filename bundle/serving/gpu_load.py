"""How busy GPUs are while a server is asked: seen now and then, at next to no cost."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from bundle.serving.gpus import Gpu
from bundle.system.background import begin, in_thread
from bundle.system.guarded import SAFE_PATH, without_keys

_QUERY = "--query-gpu=uuid,utilization.gpu,memory.used,memory.total"
_MOST = (100, 2**40, 2**40)
"""What the numbers can be, in percent and MiB."""
_LONGEST_ANSWER_S = 10.0
_SHORTEST_PAUSE_S = 2.0
_MOST_OF_THE_TIME = 1 / 20
"""Of the time, the share that ``nvidia-smi`` may run, which takes seconds on some machines."""
_RESOLUTION = 1 / 200
"""Of the time since the beginning, the length of a pause: a long run has not more to show than a short one."""
_MOST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What a GPU does, as far as the driver says.

    Attributes:
        gpu: Its `Gpu.index`.
        utilization: Percent of the last moment in which a kernel ran on it.
        used_mib: Memory in use, whoever uses it.
    """

    gpu: int
    utilization: int | None
    used_mib: int | None
    total_mib: int | None


async def watch(gpus: Sequence[Gpu], seen: Callable[[Sequence[Load]], None]) -> None:
    """Look at GPUs now and then until cancelled; ``seen`` is called with what was seen, if that is anything.

    Parts of GPUs, and a driver that does not answer, show nothing.
    """
    places = {gpu.uuid: gpu.index for gpu in gpus if gpu.index is not None}
    command = shutil.which("nvidia-smi")
    if command is None or not places:
        return
    query = [command, _QUERY, "--format=csv,noheader,nounits", f"--id={','.join(places)}"]
    began, failures = time.monotonic(), 0
    while failures < _MOST_FAILURES:
        asked = time.monotonic()
        loads = _loads(await _answer(query), places)
        if loads:
            seen(loads)
        failures = 0 if loads else failures + 1
        now = time.monotonic()
        pause_s = max(_SHORTEST_PAUSE_S, (now - asked) / _MOST_OF_THE_TIME, (now - began) * _RESOLUTION)
        await asyncio.sleep(pause_s)


async def _answer(command: Sequence[str]) -> str:
    """What a program says; "" where it fails or takes long. Cancelled, it leaves no process.

    Starting one holds up a thread, and not the event loop.
    """
    starting = begin(
        lambda: subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**without_keys(os.environ), **SAFE_PATH},
        )
    )
    try:
        process = await asyncio.wrap_future(starting)
        said, _ = await in_thread(lambda: process.communicate(timeout=_LONGEST_ANSWER_S))
    except (OSError, subprocess.TimeoutExpired):
        return ""
    finally:
        starting.add_done_callback(_end)
    return said if process.returncode == 0 else ""


def _end(started: "Future[subprocess.Popen[str]]") -> None:
    """Kill a program that has not ended; one that is stuck in the driver dies when that lets go of it."""
    if started.exception() is None and (process := started.result()).poll() is None:
        process.kill()
        begin(process.wait)


def _loads(said: str, places: dict[str, int]) -> list[Load]:
    loads = []
    for line in said.splitlines():
        uuid, *cells = (cell.strip() for cell in line.split(","))
        if uuid in places and len(cells) == 3:
            busy, used, total = (_number(cell, most) for cell, most in zip(cells, _MOST, strict=True))
            if busy is not None or used is not None:
                loads.append(Load(places[uuid], busy, used, total))
    return loads


def _number(cell: str, most: int) -> int | None:
    """A number; None for "[N/A]", "[Insufficient Permissions]", and one that cannot be."""
    known = cell.isascii() and cell.isdigit() and len(cell) <= len(str(most)) and int(cell) <= most
    return int(cell) if known else None
