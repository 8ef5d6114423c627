"""Work that may take its time but never all of it: threads a run does not wait for once they have stalled."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def each_bounded(
    do: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, stall_s: float
) -> Iterator[tuple[Job, Result]]:
    """Do every job, several at a time, and yield each with its result as it ends.

    The threads are daemons: name look-ups and the retries inside client libraries cannot be called off, and neither an
    error nor Ctrl-C nor the end of the program should wait for them.

    Args:
        do: Does one job.
        jobs: What is to be done, begun in this order.
        workers: Most jobs under way at a time.
        stall_s: Longest wait for the next job to end, in seconds.

    Raises:
        TimeoutError: No job ended in that time. No further job is begun.
        Exception: What the first job to fail has raised. No further job is begun.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    ended: SimpleQueue[tuple[Job, Result | None, Exception | None]] = SimpleQueue()
    over = threading.Event()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        while not over.is_set():
            try:
                job = waiting.get_nowait()
            except Empty:
                return
            try:
                ended.put((job, do(job), None))
            except Exception as error:  # handed over to the one who waits
                ended.put((job, None, error))

    for _ in range(min(workers, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in jobs:
            try:
                job, result, error = ended.get(timeout=stall_s)
            except Empty:
                raise TimeoutError(f"nothing arrived for {stall_s:g} seconds") from None
            if error is not None:
                raise error
            yield job, result  # type: ignore[misc]  # there is a result where there is no error
    finally:
        over.set()
