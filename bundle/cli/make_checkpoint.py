"""``bundle make-checkpoint``: a checkpoint with random weights, for trying things out."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def make_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.", show_default=False)],
    like: Annotated[
        Literal["tiny", "internlm2_5-1_8b"], typer.Option(help="Model shape; internlm2_5-1_8b takes 3.6 GB.")
    ] = "tiny",
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed; the same seed gives the same weights.")] = 0,
) -> None:
    """Write an InternLM2 checkpoint with random weights."""
    # imported late: `bundle --help` needs none of it
    from bundle.checkpoints.internlm2 import make_checkpoint
    from bundle.reports.screen.console import Screen

    make_checkpoint(directory, like=like, seed=seed, say=Screen().say)
    typer.echo(directory)
