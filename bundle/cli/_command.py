"""The command line as it was typed."""

import os
import re
import sys
from typing import TYPE_CHECKING

from bundle.cli._unexpected import hide_secrets

if TYPE_CHECKING:
    from bundle.runs.record import CommandRecord

_SECRET_OPTION = re.compile(r"--?[\w-]*(?:api[-_]?keys?|token|secret|password)(?:=|$)", re.IGNORECASE)


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
