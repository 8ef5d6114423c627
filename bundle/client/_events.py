"""Server-sent events, as servers stream chat completions."""

import json

BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may precede the first event: a byte order mark and white space."""

DONE = object()
"""The event that ends a stream: ``data: [DONE]``."""

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_FIELD = max(map(len, _FIELDS))
_OF_WHOLE_BODIES = (b"{", b"[", b"<")
_UNNAMED = frozenset({b"", b"message"})


def is_event_stream(begin: bytes, *, declared: bool) -> bool | None:
    """Whether a body is a stream of events; None if more of it is needed to tell.

    Args:
        begin: Its first bytes, without `BLANK`.
        declared: Whether its header says so. Headers are often wrong, so the body decides if it can.
    """
    if begin.startswith(_FIELDS):
        return True
    if begin[:1] in _OF_WHOLE_BODIES:
        return False
    return declared if len(begin) >= _LONGEST_FIELD else None


class EventDecoder:
    """Parses server-sent events as in the HTML standard (9.2.6), as far as chat completions use them.

    Comments, ids, retry times and events without data are dropped, and so are named events that carry neither choices
    nor an error, such as ``event: ping``.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> list[object]:
        """The events that this piece completes, each as parsed JSON or `DONE`.

        Raises:
            ValueError: One is not JSON.
        """
        buffer = self._rest + piece if self._rest else piece
        # A line may end in CR alone, but a CR at the very end may be half a CRLF.
        end = max(buffer.rfind(b"\n"), buffer.rfind(b"\r", 0, -1)) + 1
        self._rest = buffer[end:]
        events: list[object] = []
        for line in buffer[:end].splitlines():
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                self._dispatch(events)
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
        return events

    def end(self) -> list[object]:
        """The last event, if the blank line that ends it is missing."""
        return self.feed(b"\n\n")

    def _dispatch(self, events: list[object]) -> None:
        data, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._name = b""
        if not data.strip():
            return
        if data.startswith(b"[DONE]"):
            events.append(DONE)
            return
        try:
            event = json.loads(data)
        except ValueError:
            if name in _UNNAMED:
                raise
            return
        if name == b"error" and not (isinstance(event, dict) and event.get("error")):
            event = {"error": event}
        if name in _UNNAMED or (isinstance(event, dict) and ("choices" in event or "error" in event)):
            events.append(event)
