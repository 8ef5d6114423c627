"""What even a mistake in this program, or a caller's closed streams, must not lead to: an abort or a traceback."""

import os
import platform
import re
import sys
import tempfile
import traceback
from pathlib import Path

from bundle.version import __version__

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|proxy", re.IGNORECASE)
_SHORTEST_SECRET = 6
_KEYS = re.compile(r"\bsk-[\w-]+|(?<=://)[^/\s@]+(?=@)|(?<=[Bb]earer )[^\s'\"]+")
_HIDDEN = "***"


def open_closed_streams() -> None:
    """Give the standard streams that the caller closed (``<&-``, ``>&-``) a place that takes everything.

    Otherwise the next file or socket gets their number, and what is meant for the user goes there.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def write_details(error: BaseException, directory: Path | None) -> Path | None:
    """Write what a maintainer needs to know of an unexpected exception, to the run's directory or a temporary file.

    Returns where; None if nothing can be written.
    """
    versions = f"bundle {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    # Values of variables are not in it, but messages can repeat what a server or the environment said.
    text = hide_secrets(versions + "".join(traceback.format_exception(error)))
    for place in (directory, None):
        try:
            if place is None:
                number, name = tempfile.mkstemp(prefix="bundle-error-", suffix=".txt")
            else:
                name = str(place / "error.txt")
                number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return Path(name)
    return None


def hide_secrets(text: str) -> str:
    """``text`` without keys, passwords in URLs, and the values of environment variables that sound like secrets."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            for part in (value, *value.split(",")):
                if len(part.strip()) >= _SHORTEST_SECRET:
                    text = text.replace(part.strip(), _HIDDEN)
    return _KEYS.sub(_HIDDEN, text)
