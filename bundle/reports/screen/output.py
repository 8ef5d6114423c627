"""Consoles and tables on standard output and standard error, whether or not they still have a reader.

rich is imported on use: the first lines are shown before the server is started, which should not wait for it.
"""

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS: Final = {"green": 28, "yellow": 130, "cyan": 30, "bright_black": 245}
"""Of the 256 colours those that can be read on white and on black; the 16 differ from terminal to terminal, and in many
yellow and cyan can hardly be seen on white."""


def console(stream: TextIO, *, width: int | None = None) -> "Console":
    """A console that shows text as it is. ``width`` is its width in columns where it is not a terminal."""
    from rich.console import Console  # imported late: slow, and the server should start first
    from rich.theme import Theme

    terminal = stream.isatty()
    width = None if terminal else width
    theme = Theme({name: f"color({number})" for name, number in COLOURS.items()})
    return Console(file=stream, theme=theme, highlight=False, emoji=False, soft_wrap=not terminal, width=width)


def plain_table(*, padding: tuple[int, int, int, int] = (0, 1, 0, 0)) -> "Table":
    from rich.box import SIMPLE_HEAD  # imported late: slow, and the server should start first
    from rich.table import Table

    return Table(header_style="", box=SIMPLE_HEAD, show_edge=False, padding=padding, title_justify="left")


def steady(stream: TextIO, lost: Callable[[OSError], None] = lambda _: None) -> TextIO:
    """A stream like ``stream`` that never raises: a run does not end because its output can no longer be written.

    The terminal may have been closed, the reader of a pipe may have ended, the disk of a log may be full. From then on
    what is written is discarded.
    """
    return cast(TextIO, _Steady(stream, lost))


class _Steady:
    """What rich and ``print`` need of a stream."""

    def __init__(self, stream: TextIO, lost: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._lost = lost
        self._is_lost = False

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        # What is still buffered must go somewhere, or the interpreter complains at exit.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if not self._is_lost:
            self._is_lost = True
            self._lost(error)
