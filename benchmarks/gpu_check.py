"""Run the whole validation split through real lmdeploy on this machine's NVIDIA GPU, and tell what it took.

    python -m benchmarks.gpu_check [--quick] [--data DIRECTORY] [--model DIRECTORY] [--work DIRECTORY] [--update-docs]

The checkpoint is made for it, with random weights in the shape of InternLM2.5 1.8B, unless ``--model`` names another;
it is kept for the next time in ``--work``, where the results are written too. What tells most is run first, and every
run's figures are printed when it is over.
Exit codes: 0 all runs done, 1 some failed, 2 there is no GPU or no lmdeploy to run.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.checkpoints import made, talkative
from benchmarks.gpu.configurations import Configuration, configurations
from benchmarks.gpu.lmdeploy_here import has_metrics, loads_turbomind
from benchmarks.gpu.measured_run import FailedRunError, Job, run_measured
from benchmarks.gpu.report import lines, markdown
from benchmarks.machine import versions
from benchmarks.questions import write_questions
from benchmarks.tables import update_document
from bundle import __version__
from bundle.errors import BundleError
from bundle.serving.gpus import Gpu, list_gpus, visible_gpus
from bundle.serving.installation import Installation
from bundle.serving.machine import Machine

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "gpu-results.md"


def main() -> None:
    """Parse the command line, run, print and write."""
    arguments = _parse()
    gpus = visible_gpus(list_gpus())
    if not gpus:
        sys.exit(_cannot("there is no NVIDIA GPU that this program may use (see `nvidia-smi`)"))
    gpu = max(gpus, key=lambda one: one.free_mib)
    try:
        lmdeploy = Machine().installation("lmdeploy")
        turbomind = loads_turbomind(lmdeploy)
        print(f"GPU {gpu.index}: {gpu.name}, {gpu.free_mib:,} of {gpu.total_mib:,} MiB free, driver {gpu.driver}")
        print(f"lmdeploy {lmdeploy.version}; TurboMind {'loads' if turbomind else 'does not load'}", flush=True)
        checkpoint = (arguments.model or made(arguments.work)).resolve()
    except BundleError as error:
        sys.exit(_cannot(f"{error.message} {error.remedy or ''}"))
    chosen = configurations(turbomind=turbomind, made=arguments.model is None, quick=arguments.quick)
    results = {**_surroundings(gpu, lmdeploy), "runs": {}, "failed": {}}
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
        _run(chosen, job, scratch, results)
    _write(results, arguments.work)
    text = markdown(results)
    print(f"\n{text}")
    if arguments.update_docs:
        update_document("gpu", text, DOCUMENT)
    sys.exit(1 if results["failed"] else 0)


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


def _run(chosen: list[Configuration], job: Job, scratch: Path, results: dict[str, Any]) -> None:
    """Run one after the other; one that fails does not keep the next from being tried."""
    for number, configuration in enumerate(chosen):
        print(f"\n{configuration.name}", flush=True)
        folder = scratch / f"run-{number}"
        folder.mkdir()
        try:
            measured = run_measured(configuration, job, folder)
        except FailedRunError as failure:
            print(f"  failed: {failure}", flush=True)
            results["failed"][configuration.name] = str(failure)
            continue
        results["runs"][configuration.name] = measured
        for line in lines(measured, job.gpu.total_mib):
            print(f"  {line}", flush=True)


def _write(results: dict[str, Any], work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    content = {**results, "runs": {name: asdict(one) for name, one in results["runs"].items()}}
    (work / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
