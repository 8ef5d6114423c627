"""Processes of a benchmark: the simulated server, and whatever is measured."""

import compileall
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bundle.system.guardian import family, process_table

_ROOT = Path(__file__).parents[1]


def compile_program() -> None:
    """Compile this program, as pip does with what it installs: from a checkout, the first run would pay for it."""
    compileall.compile_dir(_ROOT / "bundle", quiet=1)


class FailedRunError(Exception):
    """A run failed; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A simulated server that runs.

    Attributes:
        base_url: Up to and including ``/v1``.
    """

    base_url: str

    def get(self, path: str) -> bytes:
        """What it says at this path."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.base_url.removesuffix("/v1") + path, timeout=30) as response:
            content: bytes = response.read()
        return content

    def counters(self) -> dict[str, Any]:
        """What it has done, see ``SimulatedServer.counters``."""
        counters: dict[str, Any] = json.loads(self.get("/simulation"))
        return counters


@contextmanager
def simulated_server(parameters: str | Path) -> Iterator[RunningServer]:
    """Run the simulated server with these parameters, a file or one's name, until the block is left."""
    command = [sys.executable, "-m", "benchmarks.simulated_server", str(parameters), "--until-stdin-closes"]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError(f"the simulated server ended with exit code {process.wait()}")
        try:
            yield RunningServer(base_url)
        finally:
            process.stdin.close()


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources used by a process.

    Attributes:
        exit_code: Negative for the signal that ended it.
        wall_s: From its start to its end.
        cpu_s: User and system time, its children's included.
        peak_mb: Most memory it had at once (resident, 10^6 bytes), or one of its children.
    """

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, timeout_s: float = 900
) -> Usage:
    """Run a program to its end, its output going to a file; it is killed after ``timeout_s`` seconds."""
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    killer = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        killer.cancel()
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(process.returncode, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def bundle(*arguments: str, log: Path) -> Usage:
    """Run ``bundle`` as a user does, with no network but loopback."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": ""}
    return measure([sys.executable, "-m", "bundle", *arguments], log, environment=environment)


_LAUNCHER = ("lmdeploy", "launcher.py")
_LOOK_EVERY_S = 0.01


def wait_for_server(pid: int, timeout_s: float) -> int | None:
    """Return the lmdeploy server's pid as soon as the ``bundle`` of this ``pid`` has started it; None if it ends."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        table = process_table()  # what psutil has for this takes ten times as long
        if pid not in table or table[pid].zombie:
            return None
        for below in family(table, {pid}, None):
            if any(Path(argument).parts[-2:] == _LAUNCHER for argument in _command_line(below)):
                return below
        time.sleep(_LOOK_EVERY_S)
    return None


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
