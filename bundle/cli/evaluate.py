"""``bundle eval-local`` and ``bundle eval-remote``: serve a checkpoint here, or call an API, and evaluate the model."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bundle.cli import _completion
from bundle.cli._command import typed_command
from bundle.cli.options import with_options
from bundle.cli.watch import sweep
from bundle.pipeline.options import EvaluationOptions, LocalOptions, RemoteOptions

if TYPE_CHECKING:
    from bundle.pipeline.checkpoint_folder import Model
    from bundle.pipeline.targets import Target
    from bundle.reports.screen.console import Screen


@with_options
def eval_local(
    context: typer.Context,
    model_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL_DIR",
            help="Directory of the checkpoint; several, or a directory of checkpoints, for a run each.",
            show_default=False,
        ),
    ],
    asked: EvaluationOptions,
    served: LocalOptions,
) -> None:
    """Serve a local checkpoint and evaluate it.

    Several, or one with several adapters, are evaluated one after the other, or as many at once as there are GPUs; the
    same command again resumes what is not finished. Arguments after -- are passed to the inference server, as in
    -- --backend pytorch.
    """
    from bundle.serving.machine import Machine  # imported late: `bundle --help` does not need it

    machine = Machine()
    if served.engine != "transformers":
        # nvidia-smi and the engine's installation answer while we import the rest.
        machine.look("lmdeploy" if served.engine == "auto" else served.engine)

    import asyncio  # imported late, as these: by now the GPUs are being asked

    # imported late: by now the GPUs are being asked
    from bundle.pipeline.checkpoint_folder import models_of, several
    from bundle.pipeline.local import Local
    from bundle.pipeline.local_checkpoint import LocalCheckpoint
    from bundle.reports.screen.console import Screen

    checkpoints = several(model_dirs)
    models = models_of(checkpoints or model_dirs, served.adapter)
    screen = Screen(language=asked.lang)
    if (checkpoints is not None or len(models) > 1) and not asked.dry_run:
        base = models[0].path.resolve()
        sweep(_each(models), base.name if served.adapter else base.parent.name, screen, asked, served, context, machine)
    arguments = context.obj or ()
    local, *others = (
        Local(
            LocalCheckpoint(one.path, replace(served, adapter=[one.adapter]), arguments, dry_run=asked.dry_run), machine
        )
        for one in models
    )
    target: Target = local
    if served.cluster is not None and not asked.dry_run:
        # imported late: few runs need it, and it imports the client before the server starts
        from bundle.pipeline.cluster import Cluster

        target = Cluster(local, served.cluster)
    for other in others:  # only with --dry-run: they would be asked the same, if they can be served
        asyncio.run(other.open(screen))
    _evaluate(asked, target, screen)


async def _each(models: "Sequence[Model]") -> "AsyncIterator[Model]":
    for one in models:
        yield one


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
            autocompletion=_completion.models,
        ),
    ] = None,
) -> None:
    """Evaluate a model behind an OpenAI-compatible API."""
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.remote import Remote
    from bundle.reports.screen.console import Screen

    _evaluate(asked, Remote(model, served), Screen(language=asked.lang))


def _evaluate(asked: EvaluationOptions, target: "Target", screen: "Screen") -> NoReturn:
    # imported late: `bundle --help` needs none of it
    from bundle.pipeline.pipeline import evaluate
    from bundle.pipeline.signals import run_with_signals

    command = typed_command()
    raise typer.Exit(
        run_with_signals(lambda: evaluate(asked, target, screen, command), say=screen.say, kill=target.kill)
    )
