"""Server-sent events, as servers stream chat completions."""

import re

from bundle.client._json import from_json

BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may precede the first event: a byte order mark and white space."""

DONE = object()
"""The event that ends a stream: ``data: [DONE]``."""

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_FIELD = max(map(len, _FIELDS))
_OF_WHOLE_BODIES = (b"{", b"[", b"<", b'"')
_LONGEST_CHUNK = 2**16
_MOST_LINES = 64
"""Lines of data after which only a blank line ends an event: looking for another end takes time in their square."""
_UNNAMED = frozenset({b"", b"message"})
_SAID_DONE = re.compile(rb"""["'\[<\s]*done[\]"'>.!\s]*""", re.IGNORECASE)
# What servers send for a connection to stay open.
_IDLE = re.compile(
    rb"""["'\[<\s]*(?:keep[-_ ]?alive|ping|pong|heart[-_ ]?beat|waiting|processing)[\]"'>.\s]*""", re.IGNORECASE
)


def is_event_stream(begin: bytes, *, declared: bool) -> bool | None:
    """Whether a body is a stream of events, or of chunks as JSON in lines; None if more of it is needed to decide.

    It begins with ``begin``, without `BLANK`. What its header ``declared`` is often wrong, so the body decides if it
    can.
    """
    if begin.startswith(_FIELDS):
        return True
    if begin.startswith(b"{"):
        line, newline, _ = begin.partition(b"\n")
        if not newline and len(begin) < _LONGEST_CHUNK:
            return None
        return b'"delta"' in line and _is_json(line)
    if begin[:1] in _OF_WHOLE_BODIES:
        return False
    return declared if len(begin) >= _LONGEST_FIELD else None


class EventDecoder:
    """Parses server-sent events as in the HTML standard (9.2.6), as far as chat completions use them.

    Comments, ids, retry times and events without data are dropped, and so are those that only keep the connection open:
    null, ``{}``, "keep-alive", and named events that carry neither choices nor an error, such as ``event: ping``.
    Beyond the standard, events may be separated by a single line end, be lines of JSON without ``data:``, and be
    written in ``charset`` where they are not Unicode.
    """

    def __init__(self, charset: str = "utf-8") -> None:
        self._charset = charset
        self._rest = b""
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> list[object]:
        """The events that this piece completes, each as parsed JSON, as text if it is not JSON, or `DONE`."""
        buffer = self._rest + piece if self._rest else piece
        # A line may end in CR alone, but a CR at the very end may be half a CRLF.
        end = max(buffer.rfind(b"\n"), buffer.rfind(b"\r", 0, -1)) + 1
        self._rest = buffer[end:]
        events: list[object] = []
        for line in buffer[:end].splitlines():
            if line.startswith(b"data:"):
                if self._data:
                    self._dispatch_complete(events)
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                self._dispatch(events)
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif line.startswith(b"{"):
                self._data.append(line)
                self._dispatch_complete(events)
        return events

    def end(self) -> list[object]:
        """The last event, if the blank line that ends it is missing."""
        return self.feed(b"\n\n")

    def _dispatch_complete(self, events: list[object]) -> None:
        """Dispatch the data so far unless it is the beginning of an object."""
        if len(self._data) > _MOST_LINES:
            return
        data = b"\n".join(self._data)
        if not data.startswith(b"{") or _is_json(data):
            self._dispatch(events)

    def _dispatch(self, events: list[object]) -> None:
        data, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._name = b""
        if not data.strip():
            return
        if data.startswith(b"[DONE]"):
            events.append(DONE)
            return
        event: object
        try:
            event = from_json(data, self._charset)
        except (ValueError, RecursionError):
            event = data.decode(self._charset, "replace")
        if not isinstance(event, dict) and _SAID_DONE.fullmatch(data):
            events.append(DONE)
            return
        if not event or (not isinstance(event, dict) and _IDLE.fullmatch(data)):
            return
        if name == b"error" and not (isinstance(event, dict) and event.get("error")):
            event = {"error": event}
        if name in _UNNAMED or (isinstance(event, dict) and ("choices" in event or "error" in event)):
            events.append(event)


def _is_json(data: bytes) -> bool:
    try:
        from_json(data)
    except UnicodeDecodeError:
        return data.rstrip().endswith(b"}")
    except (ValueError, RecursionError):
        return False
    return True
