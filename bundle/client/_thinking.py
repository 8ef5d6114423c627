"""Separates a reasoning model's thinking from its text, while the reply is still arriving."""

import re

_OPEN, _CLOSE = "<think>", "</think>"
_MARK = re.compile(f"{_OPEN}|{_CLOSE}")


class ThinkingSplitter:
    """Takes a reply piece by piece and keeps its thinking apart from its text.

    - What stands between ``<think>`` and ``</think>`` is thinking, wherever it stands.
    - A ``<think>`` that is never closed makes everything after it thinking.
    - A ``</think>`` that was never opened makes everything before it thinking: chat templates that end in ``<think>``
      leave the opening mark out of the reply.
    - White space between thinking and the text's first character is left out.

    How the reply is cut into pieces changes nothing. Because of the third rule, text can turn out to be thinking as
    long as the reply goes on; nothing else ever takes text back, white space aside.

    Attributes:
        took_text_back: Whether that has happened.
    """

    def __init__(self) -> None:
        self._text = ""
        self._thinking = ""
        self._inside = False
        self._marked = False
        self._held = ""
        self.took_text_back = False

    @property
    def text(self) -> str:
        """The text so far, without a tail that may be the beginning of a mark."""
        return self._text

    @property
    def thinking(self) -> str:
        """The thinking so far, likewise."""
        return self._thinking

    def feed(self, piece: str) -> str:
        """Take the next piece, and return the text so far."""
        rest = self._held + piece
        while (mark := _MARK.search(rest)) is not None:
            self._take(rest[: mark.start()])
            self._pass(mark[0])
            rest = rest[mark.end() :]
        end = _end_of_certain(rest)
        self._take(rest[:end])
        self._held = rest[end:]
        return self.text

    def end(self) -> str:
        """The reply is over: return its text."""
        self._take(self._held)
        self._held = ""
        return self.text

    def _take(self, piece: str) -> None:
        if self._inside:
            self._thinking += piece
        else:
            self._text += piece.lstrip() if self._marked and not self._text else piece

    def _pass(self, mark: str) -> None:
        if mark == _CLOSE and not self._inside:
            self.took_text_back |= bool(self._text.strip())
            self._thinking += self._text
            self._text = ""
        elif not self._text.strip():
            self._text = ""
        self._inside = mark == _OPEN
        self._marked = True


def _end_of_certain(text: str) -> int:
    """Where a tail begins that more text could make a mark of; the text's length where there is none."""
    start = text.rfind("<")
    if start >= 0 and (_OPEN.startswith(text[start:]) or _CLOSE.startswith(text[start:])):
        return start
    return len(text)


def split_thinking(reply: str) -> ThinkingSplitter:
    """A whole reply, its text and its thinking apart."""
    splitter = ThinkingSplitter()
    splitter.feed(reply)
    splitter.end()
    return splitter
