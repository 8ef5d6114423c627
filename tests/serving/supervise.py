"""A program of its own that supervises the stand-in server, for tests that end it in some way.

    python -m tests.serving.supervise DIRECTORY [OPTION OF THE STAND-IN...]

It writes the file ``ready`` in DIRECTORY when the server is, and then waits until it is ended. It runs on uvloop, like
the real program; tests of the supervisor in pytest's own process run on asyncio's loop.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from tests.serving.stand_in import Stage


async def main() -> None:
    stage = Stage(Path(sys.argv[1]))
    async with stage.supervisor(*sys.argv[2:]) as server:
        if os.environ.get("FORK_A_CHILD") and os.fork() == 0:
            signal.pause()  # It holds a copy of every pipe of ours.
        stage.write("ready", str(server.pid))
        death = await server.wait_for_death()
    stage.write("death", death.message)


if __name__ == "__main__":
    # A shell that started the tests in the background has turned it off, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
