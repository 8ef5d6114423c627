"""Run a coroutine of a command to its exit code: the first Ctrl-C stops it in order, the second at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bundle.system import guardian
from bundle.system.guarded import adopt_orphans
from bundle.system.limits import (
    allow_open_files,
    expect_end_of_cpu_time,
    forbid_core_dumps,
    has_cpu_time_limit,
    require_memory,
)

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""SIGUSR1, SIGUSR2 and SIGXCPU are how batch systems (Slurm's ``--signal``) announce that a job's time is up."""


PARENT = "BUNDLE_PARENT"
"""The variable that holds the pid of a program of ours that runs this one, and whose end is this one's."""


def run_with_signals(
    work: Callable[[], Coroutine[Any, Any, int]], *, say: Callable[[str], None], kill: Callable[[], None]
) -> int:
    """Run what ``work`` begins, and return its exit code. Signals that ask to end cancel it.

    Raises UsageError if too few files may be open, or too little memory be used.

    Args:
        work: Begins something that cleans up and returns when it is cancelled.
        kill: Cuts the cleaning up short; called on every signal but the first.
    """
    _end_with_parent()
    adopt_orphans()
    forbid_core_dumps()
    require_memory()
    allow_open_files()
    expect_end_of_cpu_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_with_signals(work(), say, kill))


def _end_with_parent() -> None:
    """Where another `bundle` runs this one, be asked to end when it dies, however that happens."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        guardian.ask_to_end_with_parent()
        if str(os.getppid()) != parent:
            os.kill(os.getpid(), signal.SIGTERM)


async def _with_signals(work: Coroutine[Any, Any, int], say: Callable[[str], None], kill: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    stopping = False

    def stop(number: signal.Signals) -> None:
        nonlocal stopping
        out_of_time = number == signal.SIGXCPU and has_cpu_time_limit()
        if not stopping:
            why = "stopping: the CPU time limit is used up (`ulimit -t`)"
            say(why if out_of_time else "stopping… press Ctrl-C again to quit now")
        elif not out_of_time:
            kill()
        stopping = True
        working.cancel()

    for number in (signal.Signals[name] for name in SIGNALS):
        # A user who starts us with `nohup` wants us to survive the terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    return await working
