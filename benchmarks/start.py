"""How long ``bundle`` takes to start: to its help, and to the server's start command on a machine with a GPU.

The machine with a GPU is simulated: an ``nvidia-smi`` and an ``lmdeploy`` on PATH that are small Python scripts.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.processes import FailedRunError, bundle, wait_for_server
from tests.stand_ins.box import gpu_box

_LONGEST_S = 60.0


def measure_start(runs: int, scratch: Path) -> dict[str, float]:
    """Medians of ``runs`` runs, after one that is not measured because it compiles the program as well.

    Returns:
        ``help_s``: seconds ``bundle --help`` takes. ``command_s``: seconds from the start of ``bundle eval-local`` to
        that of the server.

    Raises:
        FailedRunError: The server was not started.
    """
    scratch.mkdir(exist_ok=True)
    # In a process of its own: on Linux a child's peak memory starts at that of the process that started it.
    made = bundle("make-checkpoint", str(scratch / "tiny"), log=scratch / "log")
    if made.exit_code != 0:
        raise FailedRunError(f"make-checkpoint failed:\n{(scratch / 'log').read_text(errors='replace')}")
    environment = gpu_box(scratch)
    helps = [bundle("--help", log=scratch / "log").wall_s for _ in range(runs + 1)]
    commands = [_seconds_to_command(scratch, environment) for _ in range(runs + 1)]
    return {"help_s": statistics.median(helps[1:]), "command_s": statistics.median(commands[1:])}


def _seconds_to_command(scratch: Path, environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "bundle", "eval-local", str(scratch / "tiny"), "--engine", "lmdeploy"]
    command += ["--data", "sample", "--out", str(scratch / "outputs")]
    with (scratch / "log").open("w+b") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            server = wait_for_server(process.pid, _LONGEST_S)
            wall_s = time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_LONGEST_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if server is None:
            log.seek(0)
            raise FailedRunError(f"eval-local started no server:\n{log.read().decode(errors='replace')[-4000:]}")
    return wall_s
