"""``bundle make-checkpoint``: a checkpoint with random weights, for trying things out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from bundle.cli.options import option, with_options

Like = Literal[
    "tiny", "internlm2_5-1_8b", "qwen2.5", "qwen3", "llama3", "mistral", "internlm3", "deepseek-r1-distill-qwen", "glm4"
]


@dataclass(frozen=True, slots=True)
class _Options:
    like: Like = option(
        "tiny",
        "Model shape: InternLM2.5's, tiny or of full size (internlm2_5-1_8b, 3.6 GB), or a tiny one of another family: "
        f"{', '.join(get_args(Like)[2:])}.",
        metavar="NAME",
    )
    tokenizer: Path | None = option(None, "For another family: take the tokenizer in this directory.", metavar="DIR")
    seed: int = option(0, "Random seed; the same seed gives the same weights.", metavar="N")


@with_options
def make_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.", show_default=False)],
    asked: _Options,
) -> None:
    """Write a checkpoint with random weights."""
    # imported late: `bundle --help` needs none of it
    from bundle.checkpoints.families import make_family_checkpoint
    from bundle.checkpoints.internlm2 import make_checkpoint as make_internlm2_checkpoint
    from bundle.errors import UsageError
    from bundle.reports.screen.console import Screen

    say, like = Screen().say, asked.like
    if asked.tokenizer is not None and like in ("tiny", "internlm2_5-1_8b"):
        raise UsageError(
            "InternLM2.5's shapes are made with a tokenizer of their own.",
            remedy="Leave out --tokenizer, or add --like.",
        )
    try:
        if like == "tiny" or like == "internlm2_5-1_8b":
            make_internlm2_checkpoint(directory, like=like, seed=asked.seed, say=say)
        else:
            make_family_checkpoint(directory, like, tokenizer=asked.tokenizer, seed=asked.seed, say=say)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Making a checkpoint takes {error.name}, which is not installed.",
            remedy="Install the CPU engine, which brings it: pip install '.[cpu]'.",
        ) from error
    typer.echo(directory)
