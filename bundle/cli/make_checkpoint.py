"""``bundle make-checkpoint``: a checkpoint with random weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def make_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.", show_default=False)],
    like: Annotated[
        Literal["tiny", "internlm2_5-1_8b"], typer.Option(help="The shape; the real one takes 3.6 GB.")
    ] = "tiny",
    seed: Annotated[int, typer.Option(help="The same seed makes the same weights.")] = 0,
) -> None:
    """Write an InternLM2 checkpoint with random weights, in the format of the real one."""
    from bundle.checkpoints.internlm2 import make_checkpoint
    from bundle.reports.screen.console import Screen

    make_checkpoint(directory, like=like, seed=seed, say=Screen().say)
    typer.echo(directory)
