"""One run of ``bundle eval-local`` on a GPU, measured from outside."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.configurations import Configuration
from benchmarks.gpu.watching import ProcessWatch, carrying, watch_gpu, while_between
from bundle.runs.files import PREDICTIONS, RESULTS, SERVER_LOG
from bundle.runs.predictions import read_predictions
from bundle.serving.gpus import Gpu, ask_for_gpus, list_processes

_MARK = "BUNDLE_GPU_CHECK"
_SETTLES_WITHIN_S = 5.0  # a driver takes a moment to give a dead process's memory back
_EVERY_S = 0.2
_READY = re.compile(r"server ready after ([\d.]+) s")
_HIT_RATE = re.compile(r"Prefix cache hit rate: ([\d.]+)%")
_FELL_BACK = "Fallback to pytorch engine"
_LOG_LINES_SHOWN = 15
_LOG_BYTES_KEPT = 100_000


class FailedRunError(Exception):
    """A run did not answer every question; the end of what it printed is in the message."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all runs have in common.

    Attributes:
        checkpoint: What is served …
        talkative: … and what is served where a configuration asks for a talkative one.
        data: The questions.
        options: Of ``bundle eval-local``, for every run.
        server_options: Of lmdeploy, for every run.
        gpu: Where.
        timeout_s: Most seconds a run may take.
    """

    checkpoint: Path
    talkative: Path
    data: str
    options: Sequence[str]
    server_options: Sequence[str]
    gpu: Gpu
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took and gave. What could not be told is None.

    Attributes:
        command_s: Until the server's start command, from the program's start.
        ready_s: Until the server is ready, likewise.
        ask_s: The time of asking.
        total_s: The whole process.
        requests: Questions answered.
        prompt_tokens: As the server counts them.
        generated_tokens: Likewise.
        prefix_hits: Share of the prompts' tokens found in the prefix cache, percent.
        gpu_busy: While asking, percent.
        gpu_peak_mib: Most memory in use while asking.
        client_cpu_s: CPU time of the program while asking.
        server_cpu_s: CPU time of the server's main process while asking.
        free_before_mib: The GPU's free memory before the run.
        free_after_mib: And after it.
        left: Processes that are left of it.
        decided_early: Replies that were not read to their end.
        accuracy: The score of the whole benchmark, percent.
    """

    command_s: float | None
    ready_s: float | None
    ask_s: float
    total_s: float
    requests: int
    prompt_tokens: int
    generated_tokens: int
    prefix_hits: float | None
    gpu_busy: float | None
    gpu_peak_mib: int | None
    client_cpu_s: float | None
    server_cpu_s: float | None
    free_before_mib: int
    free_after_mib: int
    left: tuple[str, ...]
    decided_early: int
    accuracy: float | None


def run_measured(configuration: Configuration, job: Job, scratch: Path) -> Measured:
    """Run a configuration once.

    Args:
        configuration: Which.
        job: What all have in common.
        scratch: A directory for the run's directory and its log.

    Raises:
        FailedRunError: Not every question was answered, or TurboMind was wanted and lmdeploy took PyTorch.
    """
    checkpoint = job.talkative if configuration.talkative else job.checkpoint
    command = [sys.executable, "-m", "bundle", "eval-local", str(checkpoint), f"--data={job.data}"]
    command += ["--engine=lmdeploy", f"--gpu={job.gpu.index}", f"--out={scratch}", *job.options, *configuration.options]
    command += ["--", "--backend", configuration.backend, *job.server_options, *configuration.server_options]
    mark = secrets.token_hex(16)
    before_mib, holders = _free_mib(job.gpu), {process.pid for process in list_processes()}
    log = scratch / "log"
    started = time.perf_counter()
    with log.open("wb") as output, watch_gpu(job.gpu.uuid) as samples:
        process = subprocess.Popen(
            command, env={**os.environ, _MARK: mark}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        overran = False
        with ProcessWatch(process.pid) as watch:
            try:
                exit_code = process.wait(job.timeout_s)
            except BaseException as error:
                process.terminate()  # which ends the server as well
                exit_code = process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                overran = True
        total_s = time.perf_counter() - started
    if exit_code != 0:
        ended = "ended, it took too long" if overran else f"exit code {exit_code}"
        raise FailedRunError(f"{ended} after {total_s:.0f} s:\n{_tail(log)}")
    (directory,) = (path.parent for path in scratch.glob(f"*/{RESULTS}"))
    server_log = (directory / SERVER_LOG).read_text(encoding="utf-8", errors="replace")
    if configuration.backend == "turbomind" and _FELL_BACK in server_log:
        raise FailedRunError("lmdeploy took its PyTorch engine instead of TurboMind, see server.log")
    results = json.loads((directory / RESULTS).read_text(encoding="utf-8"))
    ask_s = results["timing"]["ask_s"]
    end = (directory / PREDICTIONS).stat().st_mtime  # when the last answer was written down
    gpu = while_between(samples, end - ask_s, end)
    after_mib = _settled_free_mib(job.gpu, before_mib)
    return Measured(
        command_s=watch.command_s,
        ready_s=_ready_s(watch.command_s, log),
        ask_s=ask_s,
        total_s=total_s,
        requests=results["coverage"]["answered"],
        prompt_tokens=results["tokens"]["prompt"],
        generated_tokens=results["tokens"]["completion"],
        prefix_hits=_prefix_hits(results, server_log),
        gpu_busy=gpu and gpu[0],
        gpu_peak_mib=gpu and gpu[1],
        client_cpu_s=watch.cpu_s("client", end - ask_s, end),
        server_cpu_s=watch.cpu_s("server", end - ask_s, end),
        free_before_mib=before_mib,
        free_after_mib=after_mib,
        left=(*carrying(mark), *_new_holders(holders)),
        decided_early=sum(row.decided_early for row in read_predictions(directory)),
        accuracy=_accuracy(results),
    )


def keep_logs(scratch: Path, directory: Path, name: str) -> None:
    """Keep the ends of what a run printed and of what its server did, whether it failed or not.

    Args:
        scratch: As ``run_measured`` was given it.
        directory: Where to.
        name: What the files' names begin with.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for kind, pattern in (("output", "log"), ("server", f"*/{SERVER_LOG}")):
        for path in scratch.glob(pattern):
            (directory / f"{name}-{kind}.log").write_bytes(path.read_bytes()[-_LOG_BYTES_KEPT:])


def _ready_s(command_s: float | None, log: Path) -> float | None:
    found = _READY.search(log.read_text(encoding="utf-8", errors="replace"))
    return None if command_s is None or found is None else command_s + float(found.group(1))


def _prefix_hits(results: Mapping[str, Any], server_log: str) -> float | None:
    """As the run has it on record, or else as the server printed it last."""
    recorded = (results.get("server") or {}).get("prefix_cache_hit_rate")
    if recorded is not None:
        return 100 * float(recorded)
    printed = _HIT_RATE.findall(server_log)
    return float(printed[-1]) if printed else None


def _accuracy(results: Mapping[str, Any]) -> float | None:
    accuracy = results["scores"].get("ceval", {}).get("accuracy")
    return None if accuracy is None else float(accuracy)


def _free_mib(gpu: Gpu) -> int:
    return next((now.free_mib or 0 for now in ask_for_gpus().gpus if now.uuid == gpu.uuid), 0)


def _settled_free_mib(gpu: Gpu, before_mib: int) -> int:
    """The GPU's free memory, once it is what it was before, or does not become that."""
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    while (free := _free_mib(gpu)) < before_mib and time.monotonic() < deadline:
        time.sleep(_EVERY_S)
    return free


def _new_holders(before: set[int]) -> list[str]:
    return [f"{process.pid} ({process.name}, on the GPU)" for process in list_processes() if process.pid not in before]


def _tail(log: Path) -> str:
    """The end of what a run printed, and its error if that stands before."""
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    before, end = said[:-_LOG_LINES_SHOWN], said[-_LOG_LINES_SHOWN:]
    return "\n".join([*(line for line in before if line.startswith("error: ")), *end])
