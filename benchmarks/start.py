"""Measure how long ``bundle`` takes to start: to its help, and to the server's start command on a machine with a GPU.

    python -m benchmarks.start [--runs N]

The machine with a GPU is a stand-in: an ``nvidia-smi`` and an ``lmdeploy`` on PATH that are small Python scripts.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measurement import FailedRunError, bundle
from benchmarks.processes_below import wait_for_server
from benchmarks.scenarios import Outcome
from bundle.checkpoints.internlm2 import make_checkpoint
from tests.stand_ins.box import gpu_box

COMMAND_S = 0.7
"""Most seconds ``bundle eval-local`` may take until it starts the server."""

_LONGEST_S = 60.0


def measure_start(runs: int, scratch: Path) -> dict[str, float]:
    """Medians of so many runs.

    Args:
        runs: How often each is done, after one that is not measured because it compiles the program as well.
        scratch: An empty directory, or where to make one.

    Returns:
        ``help_s``: seconds ``bundle --help`` takes. ``command_s``: seconds from the start of ``bundle eval-local`` to
        that of the server. ``command_cpu_s``: what it has spent until then, user and system, without its children.

    Raises:
        FailedRunError: The server was not started.
    """
    scratch.mkdir(exist_ok=True)
    make_checkpoint(scratch / "tiny", like="tiny")
    environment = gpu_box(scratch)
    helps = [bundle("--help", log=scratch / "log").wall_s for _ in range(runs + 1)]
    commands = [_to_command(scratch, environment) for _ in range(runs + 1)]
    return {
        "help_s": statistics.median(helps[1:]),
        "command_s": statistics.median(wall for wall, _ in commands[1:]),
        "command_cpu_s": statistics.median(cpu for _, cpu in commands[1:]),
    }


def outcomes(results: Mapping[str, Any]) -> list[Outcome]:
    """Whether the start command came soon enough, if that was measured."""
    if (start := results.get("start")) is None:
        return []
    seconds = start["command_s"]
    text = "`bundle eval-local` to the server's start command, seconds"
    return [Outcome(text, f"{COMMAND_S:g}", f"{seconds:.3g}", seconds < COMMAND_S)]


def _to_command(scratch: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds until the server is started; it is not waited for."""
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
            times = psutil.Process(process.pid).cpu_times() if server is not None else None
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_LONGEST_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if times is None:
            log.seek(0)
            raise FailedRunError(f"eval-local started no server:\n{log.read().decode(errors='replace')[-4000:]}")
    return wall_s, times.user + times.system


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description="Measure how long bundle takes to start.")
    parser.add_argument("--runs", type=int, default=9, help="how often; medians are shown")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="bundle-bench-") as folder:
        start = measure_start(runs, Path(folder))
    print(f"bundle --help: {start['help_s']:.3f} s")
    print(
        f"bundle eval-local to the server's start command: {start['command_s']:.3f} s, "
        f"of which {start['command_cpu_s']:.3f} s of CPU; to be below {COMMAND_S:g} s"
    )


if __name__ == "__main__":
    main()
