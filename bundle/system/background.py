"""Concurrent work: what it waits for, what ends it, and whose error is raised."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from bundle.errors import BundleError, ServerError

T = TypeVar("T")

_UNTIL_A_DEATH_IS_NOTICED_S = 1.0


def begin(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a daemon thread, for which nothing waits at the end of the program."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # it cannot be called off

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name=getattr(work, "__name__", "work")).start()
    return done


async def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a daemon thread and return what it returns.

    Unlike ``asyncio.to_thread``, a caller that was cancelled is not waited for: a download that hangs must not hold up
    Ctrl-C. Its result is then thrown away.
    """
    return await asyncio.wrap_future(begin(work))


def bounded(work: Callable[[Callable[[str], None]], T], *, stall_s: float, say: Callable[[str], object] = str) -> T:
    """Run ``work`` in a daemon thread and return what it returns, as long as it makes progress.

    Name look-ups and the retries inside client libraries cannot be called off, and neither an error nor Ctrl-C nor the
    end of the program should wait for them. Without progress for ``stall_s`` seconds TimeoutError is raised, and the
    thread is left behind.

    Args:
        work: Called with a function that it calls whenever it makes progress, with a line for people or "".
        say: Called in this thread with the lines.
    """
    news: SimpleQueue[str | None] = SimpleQueue()
    done = begin(lambda: work(news.put))
    done.add_done_callback(lambda _: news.put(None))
    while True:
        try:
            line = news.get(timeout=stall_s)
        except Empty:
            raise TimeoutError(f"no progress for {stall_s:g} seconds") from None
        if line is None:
            return done.result()
        if line:
            say(line)


async def until_done_or_trouble(
    work: Coroutine[Any, Any, None], watch: Coroutine[Any, Any, ServerError]
) -> ServerError | None:
    """Await ``work``; return what is wrong with the server where that ends it.

    A server that fails may have died just now, and that is the better explanation.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return watching.result()
        working.result()
    except ServerError as trouble:
        dead, _ = await asyncio.wait({watching}, timeout=_UNTIL_A_DEATH_IS_NOTICED_S)
        return watching.result() if dead else trouble
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
    return None


@contextlib.asynccontextmanager
async def first_fault_only() -> AsyncIterator[None]:
    """Raise the first error itself where a task group raises a group: the others are its consequences.

    An operating system error that nothing else handles becomes a BundleError.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        for fault in group.exceptions:
            if isinstance(fault, BundleError):
                raise fault from None
        for fault in group.exceptions:
            if isinstance(fault, OSError):
                raise BundleError(
                    f"Operating system error: {fault}.", remedy="`bundle doctor` checks this machine."
                ) from None
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
