"""How long tests wait.

A test fails because something does not happen, never because it takes long: machines are busy. So what must happen is
waited for with a limit that no busy machine reaches, and where a promise is about seconds, one of several tries has to
keep it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 120.0
"""Seconds after which what has not happened will not happen."""


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until ``holds()`` is true; fail if it does not become true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.02)


async def eventually(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """`wait_until` for tests that run on an event loop."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        await asyncio.sleep(0.01)


def fastest(once: Callable[[], float], *, below: float, tries: int = 5) -> float:
    """Seconds that ``once`` says it took: the first that are ``below``, or else the fewest of all tries."""
    found: list[float] = []
    while len(found) < tries and not (found and found[-1] < below):
        found.append(once())
    return min(found)


async def fastest_of(once: Callable[[], Awaitable[float]], *, below: float, tries: int = 5) -> float:
    """`fastest` for tests that run on an event loop."""
    found: list[float] = []
    while len(found) < tries and not (found and found[-1] < below):
        found.append(await once())
    return min(found)
