"""Standard output and standard error, as long as there is somebody at the other end."""

import contextlib
import os
from collections.abc import Callable
from typing import TextIO, cast


def steady(stream: TextIO, lost: Callable[[OSError], None] = lambda _: None) -> TextIO:
    """A stream like ``stream`` that never raises: a run does not end because nobody looks at it any more.

    The terminal may have been closed, the reader of a pipe may have ended, the disk of a log may be full. From then on
    what is written is thrown away.

    Args:
        stream: Where text is written.
        lost: Told once why it cannot be.
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
        # What is still in the stream's buffer must go somewhere, or the interpreter complains of it when it ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if not self._is_lost:
            self._is_lost = True
            self._lost(error)
