"""``bundle tasks`` and ``bundle models``: what there is to choose from."""

from collections.abc import Mapping
from typing import Annotated

import typer

from bundle.cli import _completion
from bundle.system.text import hanging, printable


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK", help="List this task's subjects.", show_default=False, autocompletion=_completion.tasks
        ),
    ] = None,
) -> None:
    """List the tasks, or one task's subjects."""
    from bundle.config.files import file_names  # imported late: `bundle --help` needs no tasks
    from bundle.tasks.catalog import find_task

    if name is None:
        _list({known: find_task(known).description for known in file_names("configs")})
    else:
        for subject in find_task(name).subjects:
            typer.echo(printable(f"{subject.name}  {subject.english}  {subject.chinese}"))


def models() -> None:
    """List the model files."""
    from bundle.config.files import file_names  # imported late: `bundle --help` needs no model files
    from bundle.config.model_files import model_file

    _list({known: model_file(known).description for known in file_names("models")})


def _list(descriptions: Mapping[str, str]) -> None:
    width = max(map(len, descriptions)) + 2
    for name, description in descriptions.items():
        typer.echo(hanging(f"{name:<{width}}{description}", width))
