"""What the shell offers when Tab is pressed: tasks, model files, engines, subjects, formats, runs and files.

Each function makes the completions of what was typed so far, after the command line before it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tasks, and files of one's own."""
    return _beginning([*_named("configs"), *_paths(incomplete)], incomplete)


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    return _beginning([*_named("models"), *_paths(incomplete)], incomplete)


def engines(ctx: typer.Context, incomplete: str) -> list[str]:
    from bundle.serving.engines import ENGINES  # imported late: only Tab needs it

    return _beginning(["auto", *ENGINES], incomplete)


def subjects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Subjects and groups of the task named before, C-Eval's without one; further ones after a comma."""
    from bundle.errors import BundleError  # imported late: only Tab needs them
    from bundle.tasks.catalog import find_task

    *before, last = incomplete.split(",")
    try:
        task = find_task(next(iter(ctx.params.get("tasks") or ["ceval_gen"])))
    except BundleError:
        return []
    names = [subject.name for subject in task.subjects]
    names += [group.partition("-")[2] for group in task.groups if "-" in group]
    return [",".join([*before, name]) for name in _beginning(names, last) if name not in before]


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs in the directory that ``--out`` names, the newest first, the models they evaluated, and paths."""
    from bundle.runs.finding import LATEST  # imported late: only Tab needs it

    names = [*run_names(ctx, incomplete), *run_models(ctx, incomplete)]
    return _beginning([str(LATEST), *names, *_paths(incomplete)], incomplete)


def run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    return _beginning([one.name for one in _runs(ctx)], incomplete)


def run_models(ctx: typer.Context, incomplete: str) -> list[str]:
    from bundle.runs.finding import models_of  # imported late: only Tab needs it

    return _beginning([model.name for _, model in models_of(_runs(ctx))], incomplete)


def _runs(ctx: typer.Context) -> list[Path]:
    from bundle.runs.finding import OUTPUTS, runs_in  # imported late: only Tab needs them

    return runs_in(Path(ctx.params.get("out") or OUTPUTS))


def trackers(ctx: typer.Context, incomplete: str) -> list[str]:
    from bundle.reports.trackers import TRACKERS  # imported late: only Tab needs it

    return _beginning(TRACKERS, incomplete)


def formats(ctx: typer.Context, incomplete: str) -> list[str]:
    from bundle.reports.formats import FORMATS  # imported late: only Tab needs it

    return _beginning(FORMATS, incomplete)


def _named(folder: Any) -> list[str]:
    from bundle.config.files import file_names  # imported late: only Tab needs it

    return file_names(folder)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return list(dict.fromkeys(name for name in names if name.startswith(incomplete)))


def _paths(incomplete: str) -> Iterator[str]:
    """Directories and files, as the shell itself would offer them."""
    if "/" not in incomplete:
        return
    directory = incomplete.rpartition("/")[0] + "/"
    try:
        there = sorted(Path(directory).expanduser().iterdir())
    except OSError:
        return
    for path in there:
        yield f"{directory}{path.name}{'/' if path.is_dir() else ''}"
