"""From a pipeline to an exit code, with the signals a person or a closing terminal sends on the way."""

import asyncio
import signal
import sys
from typing import Protocol

from bundle.system.core_dumps import forbid_core_dumps
from bundle.system.open_files import allow_open_files

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Pipeline(Protocol):
    """Something that runs for a while and can be told to end."""

    async def execute(self) -> int:
        """Run, and return the exit code; being cancelled means to end in order."""

    def ending(self) -> None:
        """Tell the user that it has been asked to end and is about to."""

    def kill(self) -> None:
        """End at once what was started."""


def run_to_exit_code(pipeline: Pipeline) -> int:
    """Run a pipeline. The first SIGINT, SIGTERM or SIGHUP ends it in order, the next one at once.

    Raises:
        BundleError: Whatever the pipeline raises, or this program may open too few files.
    """
    if sys.platform == "win32":
        return asyncio.run(pipeline.execute())
    forbid_core_dumps()
    allow_open_files()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_with_signals(pipeline))


async def _with_signals(pipeline: Pipeline) -> int:
    loop = asyncio.get_running_loop()
    executing = asyncio.ensure_future(pipeline.execute())
    asked_to_end = False

    def end() -> None:
        nonlocal asked_to_end
        if asked_to_end:
            pipeline.kill()
        else:
            pipeline.ending()
        asked_to_end = True
        executing.cancel()

    for number in _ENDING_SIGNALS:
        # Who starts us with `nohup` wants us to go on when the terminal is closed.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end)
    return await executing
