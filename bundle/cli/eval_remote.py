"""``bundle eval-remote``: evaluate a model behind an OpenAI-compatible API."""

from typing import Annotated

import typer

from bundle.cli.options import with_options
from bundle.pipeline.options import EvaluationOptions, RemoteOptions


@with_options
def eval_remote(
    asked: EvaluationOptions,
    served: RemoteOptions,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Served name, or a model file; optional if the server lists only one model.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Evaluate a model behind an OpenAI-compatible API."""
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.pipeline import evaluate
    from bundle.pipeline.remote import Remote
    from bundle.pipeline.signals import run_with_signals
    from bundle.reports.screen.console import Screen

    screen, target = Screen(), Remote(model, served)
    raise typer.Exit(run_with_signals(lambda: evaluate(asked, target, screen), say=screen.say, kill=target.kill))
