"""``bundle watch``: evaluate the checkpoints of a training as they are written; and what several checkpoints share."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bundle.cli._command import typed_options
from bundle.cli.options import with_options
from bundle.pipeline.options import EvaluationOptions, LocalOptions

if TYPE_CHECKING:
    from bundle.reports.screen.console import Screen
    from bundle.serving.machine import Machine

_UNTIL = "--until"


@with_options
def watch(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory in which checkpoints appear.", show_default=False)
    ],
    asked: EvaluationOptions,
    served: LocalOptions,
    until: Annotated[
        str | None,
        typer.Option(
            _UNTIL,
            metavar="NAME",
            help="End after this checkpoint. [default: never]",
            show_default=False,
            rich_help_panel="What to evaluate",
        ),
    ] = None,
) -> None:
    """Evaluate a training's checkpoints as they appear.

    A checkpoint is evaluated once all of it is there and none of it has changed for half a minute, and not again if it
    was evaluated before with the same settings. Ctrl-C ends it. Arguments after -- are passed to the inference server.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.appearing import appearing
    from bundle.pipeline.checkpoint_folder import require_folder
    from bundle.reports.screen.console import Screen
    from bundle.serving.machine import Machine

    require_folder(folder)
    screen = Screen(language=asked.lang)
    screen.say(f"watching {folder}" + (f" until {until}" if until else ""))
    _sweep(appearing(folder, until, screen.say), folder.resolve().name, screen, asked, served, context, Machine())


def sweep(
    checkpoints: Sequence[Path],
    asked: EvaluationOptions,
    served: LocalOptions,
    context: typer.Context,
    machine: "Machine",
) -> NoReturn:
    """Evaluate several checkpoints, show one table, and exit."""
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.checkpoint_folder import short_names
    from bundle.reports.screen.console import Screen

    async def all_of_them() -> AsyncIterator[tuple[str, Path]]:
        for one in zip(short_names(checkpoints), checkpoints, strict=True):
            yield one

    label = checkpoints[0].resolve().parent.name
    _sweep(all_of_them(), label, Screen(language=asked.lang), asked, served, context, machine)


def _sweep(
    checkpoints: AsyncIterable[tuple[str, Path]],
    label: str,
    screen: "Screen",
    asked: EvaluationOptions,
    served: LocalOptions,
    context: typer.Context,
    machine: "Machine",
) -> NoReturn:
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.signals import run_with_signals
    from bundle.pipeline.sweep import Sweep
    from bundle.pipeline.sweep_report import evaluate_and_report

    options = typed_options(context, but=(_UNTIL,))
    runs = Sweep(asked, served, context.obj or (), options, machine, screen)
    raise typer.Exit(
        run_with_signals(
            lambda: evaluate_and_report(runs, checkpoints, asked.out, label, screen),
            say=screen.say,
            kill=runs.interrupt,
        )
    )
