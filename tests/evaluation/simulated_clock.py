"""An event loop on which hours pass in no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_TICK_S = 1e-9  # no real clock stands still while the loop goes round


class _Selector(selectors.DefaultSelector):
    """Waits for nothing, and tells how long it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for ever")
        self.waited_s += max(timeout, _TICK_S)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Its clock starts at 0 and goes on by as much as anybody sleeps."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.waited_s


def run_simulated(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``main`` on a simulated clock."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
