"""Separates a reasoning model's thinking from its text, while the reply is still arriving."""

import re

from bundle.client._folds import Folds

_TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
_BRACKETS = (("[", "]"), ("◁", "▷"), ("＜", "＞"), ("&lt;", "&gt;"))  # Mistral, Kimi, and gateways for web pages
_PAIRS = (
    *((f"<{tag}>", f"</{tag}>") for tag in _TAGS),
    *((f"{left}think{right}", f"{left}/think{right}") for left, right in _BRACKETS),
    ("【思考】", "【/思考】"),
    ("<|channel>thought", "<channel|>"),  # Gemma
)
# gpt-oss: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
_HARMONY = tuple(f"<|{name}|>" for name in ("start", "channel", "constrain", "message", "end", "call", "return"))


class ThinkingMarks:
    """The marks around thinking: those that models use, and a pair that the user declares. Case does not matter."""

    def __init__(self, declared: tuple[str, str] | None = None) -> None:
        pairs = _PAIRS if declared is None else (*_PAIRS, (declared[0].lower(), declared[1].lower()))
        self.openings_of = {close: {one for one, end in pairs if end == close} for _, close in pairs}
        # Of two marks at one place the longer one counts.
        self._all = sorted({mark for pair in (*pairs, _HARMONY) for mark in pair}, key=len, reverse=True)
        self.any = re.compile("|".join(map(re.escape, self._all)), re.IGNORECASE)
        self._first = re.compile(f"[{re.escape(''.join({mark[0] for mark in self._all}))}]", re.IGNORECASE)
        self._longest = len(self._all[0])

    def may_be_in(self, text: str) -> bool:
        """Whether a text has a character that a mark begins with."""
        return self._first.search(text) is not None

    def end_of_certain(self, text: str) -> int:
        """Where a tail starts that more text could turn into a mark; the text's length if there is none."""
        tail = text[-self._longest :].lower()
        for found in self._first.finditer(tail):
            begin = tail[found.start() :]
            if any(mark.startswith(begin) for mark in self._all):
                return len(text) - len(begin)
        return len(text)


KNOWN_MARKS = ThinkingMarks()

_THINKING_CHANNEL = re.compile("analysis|commentary", re.IGNORECASE)
_HEADER = "header"
"""Inside the header of a harmony message, which names its channel."""


class ThinkingSplitter:
    """Takes a reply piece by piece and keeps its thinking apart from its text.

    - Everything between two marks is thinking, wherever they are: ``<think>`` and ``</think>`` or a pair of `_TAGS`,
      ``[THINK]`` and ``[/THINK]``, the declared pair, or a harmony channel of the two that are not "final".
    - An opening mark that is never closed makes everything after it thinking.
    - A closing mark that was never opened makes everything before it thinking: with chat templates that end in
      ``<think>``, the reply lacks the opening mark.
    - What a server marks at the beginning as people or web pages do is thinking, see `Folds`.
    - White space between thinking and the first character of the text is dropped.

    The result does not depend on how the reply is cut into pieces. Because of the third rule, text can turn out to be
    thinking as long as the reply goes on; nothing else ever takes text back, except white space.

    Args:
        marks: What marks thinking.

    Attributes:
        took_text_back: Whether that has happened.
    """

    def __init__(self, marks: ThinkingMarks = KNOWN_MARKS) -> None:
        self._marks = marks
        self._folds = Folds()
        self._text = ""
        self._thinking = ""
        self._inside = ""  # the mark that opened it; "" in the text
        self._header = ""
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
        return self._folds.thinking + self._thinking

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text so far."""
        if not self._folds.is_over:
            piece = self._unfolded(piece)
        rest = self._held + piece
        self._held = ""
        if not self._marks.may_be_in(rest):
            self._take(rest)
            return self._text
        while (mark := self._marks.any.search(rest)) is not None:
            self._take(rest[: mark.start()])
            self._pass(mark[0].lower())
            rest = rest[mark.end() :]
        end = self._marks.end_of_certain(rest)
        self._take(rest[:end])
        self._held = rest[end:]
        return self._text

    def end(self) -> str:
        """The reply is complete: return its text."""
        if not self._folds.is_over:
            self.feed(self._unfolded("", ends=True))
        self._take(self._held)
        self._held = ""
        return self._text

    def _unfolded(self, piece: str, *, ends: bool = False) -> str:
        text = self._folds.feed(piece, ends=ends)
        self._marked = self._folds.has_any
        return text

    def _take(self, piece: str) -> None:
        if self._inside == _HEADER:
            self._header += piece
        elif self._inside:
            self._thinking += piece
        else:
            self._text += piece.lstrip() if self._marked and not self._text else piece

    def _pass(self, mark: str) -> None:
        if mark in _HARMONY:
            self._pass_harmony(mark)
        elif (openings := self._marks.openings_of.get(mark)) is not None:
            if not self._inside:
                self.took_text_back |= bool(self._text.strip())
                self._thinking += self._text
                self._text = ""
            elif self._inside not in openings:
                self._thinking += mark  # the model thinks about marks
                return
            self._inside = ""
        elif self._inside:
            if self._inside != mark:
                self._thinking += mark
        else:
            self._inside = mark
        self._marked = True
        if not self._text.strip():
            self._text = ""

    def _pass_harmony(self, mark: str) -> None:
        if mark == "<|message|>":
            self._inside = mark if _THINKING_CHANNEL.search(self._header) else ""
        elif mark in ("<|start|>", "<|channel|>", "<|constrain|>"):
            self._header = "" if mark == "<|start|>" else self._header
            self._inside = _HEADER
        else:
            self._inside = self._header = ""


def split_thinking(reply: str, marks: ThinkingMarks = KNOWN_MARKS) -> ThinkingSplitter:
    """A whole reply, its text and its thinking apart."""
    splitter = ThinkingSplitter(marks)
    splitter.feed(reply)
    splitter.end()
    return splitter
