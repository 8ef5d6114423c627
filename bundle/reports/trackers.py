"""A run's scores for the experiment trackers that people have: ``--log``.

To add one, write a function that takes a `Logged` and says where it went, and add it to `TRACKERS`. Their packages are
imported on use, find their settings in their own environment variables, and are optional dependencies. Each is called
in a process of its own: it may ask for a login, print, or wait for a network for ever.

    python -m bundle.reports.trackers TRACKER RUN
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.errors import UsageError
from bundle.reports.formats import file_name, unanswered
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.system.text import did_you_mean, one_line

_PROJECT: Final = "bundle"
_LIMIT_S: Final = 120.0
_SAYS: Final = "bundle: "
"""Stands before what a tracker's process has to say: what else it prints is the tracker's."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What is logged of a run.

    Attributes:
        series: What its checkpoint is a step of, or else its model's name.
        step: The training step in its model's name; 0 for none.
        metrics: Accuracies in percent, by the names of ``results.json``; "partial/" stands before those of a part of
            the benchmark.
        out: The directory of the run's directory, for trackers that keep files.
    """

    name: str
    series: str
    step: int
    metrics: Mapping[str, float]
    facts: Mapping[str, str | int]
    out: Path

    @classmethod
    def of(cls, run: RecordedRun) -> "Logged":
        """Of a run that has scores."""
        series, step = run.training_step or (run.model, 0)
        prefix = "partial/" if run.partial else ""
        accuracies = {name: one.accuracy for name, one in run.scores.items()}
        facts = {
            "model": run.model,
            "tasks": ", ".join(task.name for task in run.tasks),
            "part": run.partial or "whole benchmark",
            "measurement": "ok" if run.health.is_ok else "doubtful",
            "questions": run.total,
            "answered": run.answered,
        }
        metrics = {f"{prefix}{name}": value for name, value in accuracies.items() if value is not None}
        return cls(run.name, series or run.model, step, metrics, facts, run.directory.parent)


def _tensorboard(logged: Logged) -> str:
    from tensorboard.summary import Writer  # imported late: an optional package

    directory = logged.out / "tensorboard" / file_name(logged.series)
    writer = Writer(str(directory))
    for name, value in logged.metrics.items():
        writer.add_scalar(name, value, logged.step)
    writer.close()
    return f"tensorboard --logdir {directory.parent}"


def _wandb(logged: Logged) -> str:
    import wandb  # imported late: an optional package

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        group=logged.series,
        id=file_name(logged.name)[-128:],
        name=logged.name,
        resume="allow",  # as after `bundle resume`
        config=dict(logged.facts),
        dir=str(logged.out),
    )
    run.log(dict(logged.metrics), step=logged.step)
    run.finish()
    return run.url or f"wandb sync {Path(run.dir).parent}"


def _mlflow(logged: Logged) -> str:
    import mlflow  # imported late: an optional package

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
    with mlflow.start_run(run_name=logged.name) as run:
        mlflow.log_params(dict(logged.facts))
        mlflow.set_tag("series", logged.series)
        mlflow.log_metrics(dict(logged.metrics), step=logged.step)
    return f"run {run.info.run_id} at {mlflow.get_tracking_uri()}"


def _swanlab(logged: Logged) -> str:
    import swanlab  # imported late: an optional package

    directory = logged.out / "swanlog"
    run = swanlab.init(
        project=os.environ.get("SWANLAB_PROJECT", _PROJECT),
        experiment_name=logged.name,
        group=logged.series,
        config=dict(logged.facts),
        logdir=str(directory),
    )
    swanlab.log(dict(logged.metrics), step=logged.step)
    where = str(run.url) if run.mode == "online" else f"swanlab watch {directory}"
    swanlab.finish()
    return where


TRACKERS: Final[Mapping[str, Callable[[Logged], str]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
}
"""By name, which is its package's as well; each returns where it went."""


def require(names: Sequence[str]) -> None:
    """Check that these trackers are known and installed, before anything is started for them.

    Raises UsageError if one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"There is no tracker {name!r}.", remedy=did_you_mean(name, TRACKERS))
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed.", remedy=f"Install it: `pip install {name}`, or evalbundle[{name}]."
            )


def log(run: RecordedRun, name: str, limit_s: float = _LIMIT_S) -> str:
    """Log a run; return what to say of it. Whatever goes wrong, the run has not: its scores are in its directory."""
    if run.answered < run.total:
        return f"not logged to {name}: {unanswered(run.total - run.answered, run.total)}"
    command = [sys.executable, "-P", "-m", __name__, name, str(run.directory.resolve())]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return f"not logged to {name}: no end after {limit_s:.0f} s"
    said = [line.removeprefix(_SAYS) for line in ended.stdout.splitlines() if line.startswith(_SAYS)]
    return said[-1] if said else f"not logged to {name}: its process ended with exit code {ended.returncode}"


def _log(name: str, directory: Path) -> str:
    try:
        where = TRACKERS[name](Logged.of(read_recorded_run(directory)))
    except (Exception, SystemExit) as error:  # of any kind: it is third-party code
        return f"not logged to {name}: {type(error).__name__}: {one_line(str(error))[:300]}"
    return f"logged to {name}: {where}"


if __name__ == "__main__":
    print(f"\n{_SAYS}{_log(sys.argv[1], Path(sys.argv[2]))}", flush=True)
