"""Run the whole validation split through real lmdeploy on this machine's NVIDIA GPU, and tell what it took.

    python -m benchmarks.gpu_check [--quick] [--budget SECONDS] [--data DIRECTORY] [--model DIRECTORY]
                                   [--work DIRECTORY] [--update-docs]

The checkpoint is made for it, with random weights in the shape of InternLM2.5 1.8B, unless ``--model`` names another;
it is kept for the next time in ``--work``. What tells most is run first. After every run its figures are printed, and
``gpu.json``, ``gpu.md`` and the ends of its logs are written to ``--work``, so that a check that is cut off has told
what it knew. With ``--budget``, runs that no longer fit are left out.
Exit codes: 0 all runs done that fitted, 1 some failed or the check was cut off by a signal, 2 there is no GPU or no
lmdeploy to run.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks.gpu.configurations import Configuration, configurations, has_metrics, loads_turbomind, made, talkative
from benchmarks.gpu.measured_run import FailedRunError, Job, keep_logs, run_measured
from benchmarks.gpu.report import lines, markdown
from benchmarks.questions import write_questions
from benchmarks.tables import update_document, versions
from bundle import __version__
from bundle.errors import BundleError
from bundle.serving.gpus import Gpu, ask_for_gpus, select_gpus, visible_gpus
from bundle.serving.machine import Installation, Machine

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "gpu-results.md"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHORTEST_RUN_S = 45.0
"""A run that has less time is not begun, while it is not known how long one takes."""
_ENDING_S = 15.0
"""Kept of the budget for a run that has to be ended."""


class _CutOffError(BaseException):
    """A signal asked this program to end. No ``except Exception`` is to catch it."""


def main() -> None:
    """Parse the command line, run, print and write."""
    started = time.monotonic()
    arguments = _parse()
    _end_in_order()
    gpus = visible_gpus(ask_for_gpus().gpus)
    if not gpus:
        sys.exit(_cannot("there is no NVIDIA GPU that this program may use (see `nvidia-smi`)"))
    (gpu,) = select_gpus(gpus, None, 1)
    try:
        lmdeploy = Machine().installation("lmdeploy")
        turbomind = loads_turbomind(lmdeploy)
        print(f"GPU {gpu.index}: {gpu.name}, {gpu.free}, driver {gpu.driver}")
        print(f"lmdeploy {lmdeploy.version}; TurboMind {'loads' if turbomind else 'does not load'}", flush=True)
        checkpoint = (arguments.model or made(arguments.work)).resolve()
    except BundleError as error:
        sys.exit(_cannot(f"{error.message} {error.remedy or ''}"))
    chosen = configurations(turbomind=turbomind, made=arguments.model is None, quick=arguments.quick)
    print(f"{len(chosen)} runs; everything before them took {time.monotonic() - started:.1f} s", flush=True)
    results = {**_surroundings(gpu, lmdeploy), "runs": {}, "failed": {}, "not_run": {}}
    with tempfile.TemporaryDirectory(prefix="bundle-gpu-check-") as folder:
        scratch = Path(folder)
        if arguments.data is None:
            write_questions(scratch / "questions")
        job = Job(
            checkpoint=checkpoint,
            talkative=talkative(checkpoint, scratch / "talkative") if arguments.model is None else checkpoint,
            data=str(arguments.data or scratch / "questions"),
            options=() if arguments.limit is None else (f"--limit={arguments.limit}",),
            server_options=() if has_metrics(lmdeploy) else ("--disable-metrics",),
            gpu=gpu,
            timeout_s=arguments.timeout,
        )
        ends = None if arguments.budget is None else started + arguments.budget
        cut_off = _run(chosen, job, scratch, results, arguments.work, ends)
        _ignore_signals()  # what is left to do takes a moment, and the scratch directory must go
    text = markdown(results)
    print(f"\n{text}")
    if arguments.update_docs:
        update_document("gpu", text, DOCUMENT)
    sys.exit(1 if results["failed"] or cut_off else 0)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the validation split through real lmdeploy on this machine's GPU."
    )
    parser.add_argument("--quick", action="store_true", help="only what tells most")
    parser.add_argument("--data", type=_absolute, help="C-Eval in its own layout; by default random questions")
    parser.add_argument("--model", type=_absolute, help="a checkpoint; by default a made one of 1.8B's shape")
    parser.add_argument(
        "--work", type=_absolute, default=RESULTS, help="where the made checkpoint and results are kept"
    )
    parser.add_argument("--limit", type=int, help="only so many questions of every subject")
    parser.add_argument("--timeout", type=float, default=300, help="most seconds a run may take")
    parser.add_argument("--budget", type=float, help="most seconds all may take; what does not fit is left out")
    parser.add_argument("--update-docs", action="store_true", help="write the table into docs/gpu-results.md")
    return parser.parse_args()


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _cannot(reason: str) -> int:
    print(f"gpu-check: {reason}", file=sys.stderr)
    return 2


def _surroundings(gpu: Gpu, lmdeploy: Installation) -> dict[str, Any]:
    return {
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(("python -m benchmarks.gpu_check", *sys.argv[1:])),
        "gpu": gpu.name,
        "gpu_mib": gpu.total_mib,
        "driver": gpu.driver,
        "cores": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            "bundle": __version__,
            "lmdeploy": lmdeploy.version,
            **versions(("torch", "triton", "transformers", "openai", "aiohttp")),
        },
    }


def _run(
    chosen: list[Configuration], job: Job, scratch: Path, results: dict[str, Any], work: Path, ends: float | None
) -> bool:
    """Run one after the other; one that fails does not keep the next from being tried. True where a signal ended it.

    The results are written after each.
    """
    longest_s: dict[str, float] = {}  # by backend: TurboMind starts in a third of the PyTorch engine's time
    cut_off = False
    for number, configuration in enumerate(chosen):
        name = configuration.name
        left_s = None if ends is None else ends - time.monotonic() - _ENDING_S
        if cut_off:
            results["not_run"][name] = "the check was cut off"
        elif left_s is not None and left_s < (takes_s := longest_s.get(configuration.backend, _SHORTEST_RUN_S)):
            results["not_run"][name] = f"{max(0, left_s):.0f} s were left, and a run takes up to {takes_s:.0f}"
            print(f"\n{name}\n  not run: {results['not_run'][name]}", flush=True)
        else:
            print(f"\n{name}", flush=True)
            folder = scratch / f"run-{number}"
            folder.mkdir()
            began = time.monotonic()
            timeout_s = job.timeout_s if left_s is None else min(job.timeout_s, left_s)
            try:
                measured = run_measured(configuration, replace(job, timeout_s=timeout_s), folder)
            except (Exception, _CutOffError) as failure:
                cut_off = isinstance(failure, _CutOffError)
                known = cut_off or isinstance(failure, FailedRunError)
                results["failed"][name] = str(failure) if known else traceback.format_exc().strip()
                print(f"  failed: {results['failed'][name]}", flush=True)
            else:
                results["runs"][name] = measured
                for line in lines(measured, job.gpu.total_mib or 0):
                    print(f"  {line}", flush=True)
                took_s = time.monotonic() - began
                longest_s[configuration.backend] = max(longest_s.get(configuration.backend, _SHORTEST_RUN_S), took_s)
            keep_logs(folder, work / "logs", f"{number}-{_slug(name)}")
            shutil.rmtree(folder, ignore_errors=True)
        _write(results, work)
    return cut_off


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _end_in_order() -> None:
    """The first signal ends the run that is under way, and what was measured is told; later ones change nothing."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise _CutOffError(f"cut off by {signal.Signals(number).name}")

    for one in _SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(one, end)


def _ignore_signals() -> None:
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def _write(results: dict[str, Any], work: Path) -> None:
    content = {**results, "runs": {name: asdict(one) for name, one in results["runs"].items()}}
    _replace(work / "gpu.json", json.dumps(content, indent=1))
    _replace(work / "gpu.md", markdown(results))


def _replace(path: Path, text: str) -> None:
    """Whoever reads it meanwhile, or after this was cut off, finds a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    try:
        main()
    except _CutOffError as signalled:
        sys.exit(f"gpu-check: {signalled}")
