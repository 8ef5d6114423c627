"""The command line as it was typed."""

import os
import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from bundle.cli._unexpected import hide_secrets

if TYPE_CHECKING:
    from bundle.runs.record import CommandRecord

_SECRET_OPTION = re.compile(r"--?[\w-]*(?:api[-_]?keys?|token|secret|password)(?:=|$)", re.IGNORECASE)


def typed_options(context: typer.Context, *, but: Collection[str] = ()) -> list[str]:
    """The options of this process's command as they were typed, without arguments and without what follows ``--``.

    ``but``: options to leave out.
    """
    takes_value = {
        name
        for one in context.command.params
        if one.param_type_name == "option" and not getattr(one, "is_flag", False)
        for name in one.opts
    }
    typed = sys.argv[2 : sys.argv.index("--") if "--" in sys.argv else None]
    kept: list[str] = []
    rest = iter(typed)
    for word in rest:
        if not word.startswith("-"):
            continue
        name = word.partition("=")[0]
        words = [word, next(rest)] if name in takes_value and name == word else [word]
        kept += [] if name in but else words
    return kept


def typed_command() -> "CommandRecord | None":
    """The command line of this process, to be written down; None if it holds a secret or cannot be repeated."""
    from bundle.runs.record import CommandRecord  # imported late: `bundle --help` does not need it

    arguments = tuple(sys.argv[1:])
    text = "\n".join(arguments)
    if not arguments or hide_secrets(text) != text or any(map(_SECRET_OPTION.match, arguments)):
        return None
    try:
        return CommandRecord(arguments=arguments, directory=os.getcwd())  # noqa: PTH109 - it may be gone
    except (OSError, ValueError):
        return None
