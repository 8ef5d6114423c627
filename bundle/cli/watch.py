"""``bundle watch``: evaluate the checkpoints of a training as they are written; and what several checkpoints share."""

import functools
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bundle.cli._command import typed_options
from bundle.cli.options import with_options
from bundle.errors import UsageError
from bundle.pipeline.options import GROUPS, EvaluationOptions, LocalOptions, option

if TYPE_CHECKING:
    from bundle.pipeline.checkpoint_folder import Model
    from bundle.reports.screen.console import Screen
    from bundle.serving.machine import Machine

_UNTIL = "--until"


@dataclass(frozen=True, slots=True)
class _Options:
    until: str | None = option(GROUPS[0], None, "End after this checkpoint.", _UNTIL, metavar="NAME", default="never")


@functools.partial(with_options, hidden=("adapter", "cluster", "junit", "replicas", "resume", "summary"))
def watch(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory in which checkpoints appear.", show_default=False)
    ],
    watched: _Options,
    asked: EvaluationOptions,
    served: LocalOptions,
) -> None:
    """Evaluate a training run's checkpoints as they appear.

    A checkpoint is evaluated once all of it is there and none of it has changed for half a minute, and not again if it
    was evaluated before with the same settings. Ctrl-C ends it. Arguments after -- are passed to the inference server.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.checkpoint_folder import STILL_S, appearing, require_folder
    from bundle.reports.screen.console import Screen
    from bundle.serving.machine import Machine

    if served.adapter:
        raise UsageError("--adapter is for a single checkpoint.", remedy="Evaluate it with `bundle eval-local`.")
    require_folder(folder)
    screen = Screen(language=asked.lang)
    until = watched.until
    end = f" until {until}" if until else ""
    screen.say(f"watching {folder}{end}: a checkpoint is evaluated once nothing of it has changed for {STILL_S:.0f} s")
    sweep(appearing(folder, until, screen.say), folder.resolve().name, screen, asked, served, context, Machine())


def sweep(
    models: "AsyncIterable[Model]",
    label: str,
    screen: "Screen",
    asked: EvaluationOptions,
    served: LocalOptions,
    context: typer.Context,
    machine: "Machine",
) -> NoReturn:
    """Evaluate several models, show one table, and exit; ``label`` is the end of the name of the table's directory."""
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.signals import run_with_signals
    from bundle.pipeline.sweep import Sweep

    options = typed_options(context, but=(_UNTIL, "--adapter"))
    runs = Sweep(asked, served, context.obj or (), options, machine, screen)
    raise typer.Exit(run_with_signals(lambda: runs.evaluate(models, label), say=screen.say, kill=runs.interrupt))
