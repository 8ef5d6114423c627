"""One worker, as its driver sees it."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Final

from bundle.errors import ServerError
from bundle.fleet.wire import PATIENCE_S, error_from_json, from_line, to_line

_LOOK_EVERY_S: Final = 1.0
_START_S: Final = 120.0
"""The longest that a worker may take from its start to its first line: Python, and what it imports."""


class Link:
    """Has a worker do things, by bytes sent to it, and gives it up when nothing is heard of it.

    Attributes:
        heard: Called with what the worker sends by itself: a kind ("say", "activity", "log") and a text.
        lost: Has a result, the reason, once the worker is gone or given up.
        silent: Whether it was given up because nothing was heard of it.
    """

    def __init__(self, send: Callable[[bytes], None], machine: str) -> None:
        self.machine = machine
        self.silent = False
        self.heard: Callable[[str, str], None] = lambda kind, text: None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[ServerError] = loop.create_future()
        self._hello: asyncio.Future[dict[str, str]] = loop.create_future()
        self._send = send
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[asyncio.Future[Any], Callable[[], None] | None]] = {}
        self._received: list[bytes] = []
        self._silent_s = 0.0
        self._watching = asyncio.ensure_future(self._watch())

    async def hello(self) -> dict[str, str]:
        """The versions of what the worker runs with. Raises ServerError if it does not come up."""
        either: set[asyncio.Future[Any]] = {self._hello, self.lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._hello.done():
            raise self.lost.result()
        return self._hello.result()

    async def call(self, name: str, *arguments: Any, begun: Callable[[], None] | None = None) -> Any:
        """Have the worker run a method of `bundle.worker.worker.Worker`, and return what comes of it.

        Cancelling this calls it off. ``begun`` is called when the reply to a question begins. Raises ServerError if the
        worker is lost, or what it met.
        """
        if self.lost.done():
            raise self.lost.result()
        number = next(self._numbers)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = done, begun
        self._send(to_line(number, name, arguments))
        try:
            return await done
        except asyncio.CancelledError:
            if self._calls.pop(number, None) is not None:
                self._send(to_line(number, "cancel", ()))
            raise

    def tell(self, name: str, *arguments: Any) -> None:
        """Have the worker do something that has no result, before whatever it is sent after this."""
        self._send(to_line(0, name, arguments))

    def stop(self) -> None:
        """Have the worker stop its server and end. What was called for comes to nothing: whoever waits is cancelled."""
        calls, self._calls = self._calls, {}
        for done, _ in calls.values():
            done.cancel()
        self.tell("stop")

    def received(self, data: bytes) -> None:
        """Take what has come from the worker."""
        self._silent_s = 0.0
        *lines, rest = data.split(b"\n")
        if lines and self._received:
            lines[0] = b"".join((*self._received, lines[0]))
            self._received.clear()
        if rest:
            self._received.append(rest)
        for line in lines:
            try:
                self._take(*from_line(line))
            except (ValueError, TypeError, KeyError):
                self.lose(f"{self.machine}: the worker wrote what is not of its protocol: {line[:100]!r}.")

    def lose(self, why: str, remedy: str | None = None) -> None:
        """Give the worker up; nothing more is expected of it."""
        if self.lost.done():
            return
        self._watching.cancel()
        error = ServerError(why, remedy=remedy)
        self.lost.set_result(error)
        for done, _ in self._calls.values():
            if not done.done():
                done.set_exception(error)
        self._calls.clear()

    def _take(self, number: int, kind: str, value: Any) -> None:
        if number == 0:
            if kind == "hello":
                if not self._hello.done():
                    self._hello.set_result(value)
            else:
                self.heard(kind, value)
            return
        if kind == "begun":
            _, begun = self._calls.get(number, (None, None))
            if begun is not None:
                begun()
            return
        done, _ = self._calls.pop(number, (None, None))
        if done is None or done.done():
            return  # it was called off
        if kind == "result":
            done.set_result(value)
        else:
            done.set_exception(error_from_json(value, self.machine))

    async def _watch(self) -> None:
        """Give up a worker that falls silent. Looks are counted, not the clock: this program may have been stopped."""
        with contextlib.suppress(asyncio.CancelledError):
            while self._silent_s < (PATIENCE_S if self._hello.done() else _START_S):
                await asyncio.sleep(_LOOK_EVERY_S)
                self._silent_s += _LOOK_EVERY_S
            self.silent = True
            self.lose(
                f"{self.machine}: nothing was heard of the worker for {self._silent_s:.0f} s.",
                "The machine or the network may be down.",
            )
