"""A server's log while the server writes it: bounded on the disk and when read, and safe to print."""

import contextlib
import os
import re
from pathlib import Path

from bundle.system.files import open_for_writing, open_regular
from bundle.system.text import printable as visible

MAX_BYTES = 32 * 2**20
"""What the file may take before its middle is left out. Most servers write some kilobytes."""
_KEPT_BYTES = MAX_BYTES // 4
"""What is kept of its beginning, and as much of its end."""
_MOST_READS = 100

# A server may write without end; a cause is always near the end.
TAIL_BYTES = 64 * 1024
_LONGEST_LINE = 500
# Colours, cursor movements (CSI), window titles and links (OSC), and the other two-byte escapes of ECMA-48.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


class ServerLog:
    """The log of one server, from now on: what the file held before belongs to another one.

    The server appends to the file by itself, so nothing here can delay it. Whoever reads `new_lines` now and then also
    keeps the file at ``MAX_BYTES`` and what comes between two calls. The file and its directory are made if missing,
    readable by this user only; OSError is raised if it cannot be written, or is not a regular file. Secrets are
    replaced by ``***`` in everything read.
    """

    def __init__(self, path: Path, *, secrets: tuple[str, ...] = ()) -> None:
        self.path = path
        self._secrets = tuple(secret for secret in secrets if secret)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(self.open())
        self._begin = self._read_up_to = path.stat().st_size

    def open(self) -> int:
        """A file descriptor that appends to the log; the caller closes it."""
        descriptor = open_for_writing(self.path, os.O_CREAT | os.O_APPEND)
        os.fchmod(descriptor, 0o600)
        return descriptor

    def new_lines(self) -> list[str]:
        """Complete lines written since the last call; of very many, only the last."""
        self._leave_out_the_middle()
        data, begin = self._read(self._read_up_to)
        # A progress bar ends its line with a carriage return. What follows the last line end is not complete.
        complete = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._read_up_to = begin + complete
        if complete == 0 and len(data) == TAIL_BYTES:
            self._read_up_to += TAIL_BYTES  # A "line" this long is not one.
        return self._lines(data[:complete])

    def last_lines(self) -> list[str]:
        """All lines of this server, or as many as the last ``TAIL_BYTES`` hold."""
        return self._lines(self._read(self._begin)[0])

    def _leave_out_the_middle(self) -> None:
        """Where the file has grown too large, keep its beginning and its end.

        The server goes on appending. What it writes between the last read of the end and the cut, microseconds later,
        is lost.
        """
        with contextlib.suppress(OSError), open_regular(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= MAX_BYTES:
                return
            descriptor = self.open()
            try:
                file.seek(size - _KEPT_BYTES)
                end = b""
                for _ in range(_MOST_READS):
                    if not (more := file.read()):
                        break
                    end = (end + more)[-_KEPT_BYTES:]
                end_began = file.tell() - len(end)
                os.ftruncate(descriptor, _KEPT_BYTES)
                left_out = f"\n[bundle left out {end_began - _KEPT_BYTES:,} bytes here]\n".encode()
                os.write(descriptor, left_out + end)
            finally:
                os.close(descriptor)
            # An end that the server has appended to meanwhile begins a little later; lines are read whole all the same.
            now_begins = _KEPT_BYTES + len(left_out)
            self._begin, self._read_up_to = (
                place if place <= _KEPT_BYTES else now_begins + max(0, place - end_began)
                for place in (self._begin, self._read_up_to)
            )

    def _read(self, begin: int) -> tuple[bytes, int]:
        """What the file holds from ``begin`` on, at most ``TAIL_BYTES`` of it, and where that begins."""
        try:
            with self.path.open("rb") as file:
                begin = max(begin, file.seek(0, os.SEEK_END) - TAIL_BYTES)
                file.seek(begin)
                return file.read(TAIL_BYTES), begin
        except OSError:
            return b"", begin  # Deleted under us: there is nothing to show, and nothing else depends on it.

    def _lines(self, data: bytes) -> list[str]:
        text = data.decode("utf-8", errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        lines = (printable(line) for line in re.split(r"[\r\n]+", text))
        return [line[:_LONGEST_LINE] for line in lines if line]


def printable(line: str) -> str:
    """``line`` without the colours and cursor movements of a terminal, and with anything else unseen made visible."""
    plain = _ESCAPES.sub("", line)
    return visible("".join(" " if char.isspace() else char for char in plain)).rstrip()
