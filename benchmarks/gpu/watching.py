"""What a GPU and the processes of a run do while it goes on."""

import contextlib
import datetime
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.processes import wait_for_server

_EVERY_MS = 200
_LONGEST_START_S = 120.0


@dataclass(frozen=True, slots=True)
class GpuSample:
    """The GPU at one moment.

    Attributes:
        at: Seconds since the epoch.
        busy: Percent of the time just before in which it computed anything.
        used_mib: Memory in use.
    """

    at: float
    busy: int
    used_mib: int


@contextlib.contextmanager
def watch_gpu(uuid: str) -> Iterator[list[GpuSample]]:
    """Have ``nvidia-smi`` tell what the GPU does, several times a second, until the block is left."""
    command = ["nvidia-smi", "--query-gpu=timestamp,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    command += [f"--id={uuid}", f"--loop-ms={_EVERY_MS}"]
    samples: list[GpuSample] = []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout

        def read() -> None:
            for line in lines:
                # It may not tell everything (where the GPU is divided), or print a message.
                with contextlib.suppress(ValueError):
                    at, busy, used = (cell.strip() for cell in line.split(","))
                    moment = datetime.datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f").astimezone()
                    samples.append(GpuSample(moment.timestamp(), int(busy), int(used)))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield samples
        finally:
            process.terminate()
            reader.join()


def while_between(samples: Sequence[GpuSample], begin: float, end: float) -> tuple[float, int] | None:
    """Mean percent busy and most memory used (MiB) from ``begin`` to ``end``; None where nothing was seen then."""
    seen = [sample for sample in samples if begin <= sample.at <= end]
    if not seen:
        return None
    return statistics.fmean(sample.busy for sample in seen), max(sample.used_mib for sample in seen)


class ProcessWatch:
    """Notes when ``bundle`` starts its server, and how much CPU time both have used at any moment.

    Attributes:
        command_s: Seconds from its start to the server's start command; None while there was none.
    """

    def __init__(self, pid: int) -> None:
        self.command_s: float | None = None
        self._started = time.perf_counter()
        self._pid = pid
        self._cpu: dict[str, list[tuple[float, float]]] = {"client": [], "server": []}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "ProcessWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s(self, who: str, begin: float, end: float) -> float | None:
        """Seconds of CPU, user and system, that "client" or "server" (its main process) used between two moments."""
        seen = [used for at, used in self._cpu[who] if begin <= at <= end]
        return seen[-1] - seen[0] if len(seen) > 1 else None

    def _watch(self) -> None:
        server = wait_for_server(self._pid, _LONGEST_START_S)
        if server is None:
            return
        self.command_s = time.perf_counter() - self._started
        watched = {"client": psutil.Process(self._pid), "server": psutil.Process(server)}
        while not self._over.wait(_EVERY_MS / 2000):
            for who, process in watched.items():
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._cpu[who].append((time.time(), times.user + times.system))


def carrying(mark: str) -> list[str]:
    """Pid and name of every process whose environment holds ``mark``: what came of a run that was started with it."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        with contextlib.suppress(OSError, psutil.Error):
            if mark.encode() in (directory / "environ").read_bytes():
                found.append(f"{directory.name} ({psutil.Process(int(directory.name)).name()})")
    return found
