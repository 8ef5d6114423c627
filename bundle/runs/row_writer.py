"""Appends rows to a file from its own thread, so that a slow disk does not delay the questions."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from bundle.runs.files import unwritable
from bundle.system.files import open_for_writing

_GATHER_S = 0.02


class RowWriter:
    """Writes whole rows in the order they come.

    Rows that come within a fiftieth of a second are written together; from then on, killing this process does not lose
    them. A row that a full disk took only in part is removed. Raises OSError if the file cannot be opened, or is not a
    regular one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.fdopen(open_for_writing(path, os.O_CREAT | os.O_APPEND), "ab", buffering=0)
        self._rows: list[Callable[[], str]] = []
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._written = True
        self._thread = threading.Thread(target=self._work, name=f"writer of {path.name}", daemon=True)
        self._thread.start()

    def put(self, row: Callable[[], str]) -> None:
        """Queue a row. Raises RunError if an earlier row could not be written; none is written after it."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._rows.append(row)
            if self._written:
                self._written = False
                self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all rows are written, or one could not be."""
        with self._changed:
            self._changed.wait_for(lambda: self._written or self._error is not None)

    def flush(self) -> None:
        """Wait until all rows are written. Raises RunError if one could not be."""
        self.settle()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Write the rest and close the file; errors are left to `put` and `flush`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._file.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._closing)
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, timeout=_GATHER_S)
                rows, self._rows = self._rows, []
            try:
                self._write("".join(f"{row()}\n" for row in rows).encode())
            except Exception as error:
                with self._changed:
                    self._error = unwritable(self._path, error) if isinstance(error, OSError) else error
                    self._changed.notify_all()
                return
            with self._changed:
                self._written = not self._rows
                if self._written:
                    self._changed.notify_all()
                    if self._closing:
                        return

    def _write(self, content: bytes) -> None:
        file, written = self._file.fileno(), 0
        try:
            while written < len(content):
                written += os.write(file, content[written:])
        except OSError:
            cut = written - (content.rfind(b"\n", 0, written) + 1)
            with contextlib.suppress(OSError):
                os.ftruncate(file, os.fstat(file).st_size - cut)
            raise
        if os.fstat(file).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "it has been removed")
