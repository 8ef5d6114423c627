"""Thinking before the text that no token marks, but Markdown or a bare word: what servers make of it for people."""

import re

_NAME = (
    r"(?:(?:deep )?(?:think(?:ing)?|thoughts?|reasoning)(?: process| for [^\n]{1,40})?"
    r"|(?:已经?)?(?:深度|深入)?(?:思考|推理|思维)(?:过程|内容|链|中|完成)?(?:[（(][^\n]{0,40}[)）])?)"
)
_NAMES_BEGIN = ("deep ", "think", "thought", "reasoning", "已", "深", "思", "推理")
_EDGE = r"(?:[^\w\n>`<]|_){0,12}"  # emphasis, "#", dots, symbols
_HEADING = rf"(?=[*_#]){_EDGE}{_NAME}{_EDGE}"
_OPENING = re.compile(
    rf"(?P<fence>`{{3,9}}|~{{3,9}})[ \t]{{0,9}}{_NAME}[ \t\r]{{0,9}}\n"
    rf"|>{_EDGE}{_NAME}(?:{_EDGE}\n|[*_ ]{{0,4}}[:：])"
    rf"|(?P<heading>{_HEADING}\n\s{{0,40}})>"
    r"|(?P<details><details[^<>]{0,200}>\s{0,40}<summary>[^<]{0,60}?(?:think|thought|reason|思考|思维|推理)[^<]{0,60}"
    "</summary>)",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"{_HEADING}\n\s*", re.IGNORECASE)
_BEFORE_THE_NAME = re.compile(r"(?:[`~]{1,9}|>)?(?:[^\w\n>`<]|_)*")
_LONGEST_OPENING, _LONGEST_LINE = 600, 120
_DETAILS, _DETAILS_END = "<details", re.compile("</details>", re.IGNORECASE)
_KEPT = len("</details")
_BARE, _BARE_END = "analysis", "assistantfinal"  # harmony's channels, by servers that leave special tokens out


class Folds:
    """Takes a reply piece by piece and keeps the thinking apart that is folded away at its beginning.

    - A fence with a name such as ``thinking``: up to its end, with the fences within.
    - A block quote that begins with a heading such as "**Reasoning**" or "*Thinking...*", or follows one: up to the
      first line that is neither quoted nor blank.
    - ``<details>`` with a summary such as "Thought for 3 seconds".
    - "analysis", as far as "assistantfinal" follows.

    Any other fence or quote is text. The result does not depend on how the reply is cut into pieces.

    Attributes:
        thinking: The thinking so far.
        has_any: Whether there is any.
        is_over: Whether all that follows is text.
    """

    def __init__(self) -> None:
        self.thinking = ""
        self.has_any = self.is_over = False
        self._held = ""
        self._inside = ""  # "`" or "~" in a fence, ">" in a quote, "<" in details
        self._fence, self._depth = "", 0

    def feed(self, piece: str, *, ends: bool = False) -> str:
        """Take the next piece, which may be the last; return what of it, or of those before, is text."""
        self._held += piece
        while self._read_details() if self._inside == "<" else self._read_lines(ends) if self._inside else self._open():
            pass
        if self._inside and ends:
            self.thinking, self._held = self.thinking + self._held, ""
        self.is_over = ends or not (self._inside or _may_open(self._held))
        text = self._held if self.is_over else ""
        self._held = self._held[len(text) :]
        return text

    def _open(self) -> bool:
        """Begin a fold, or take a bare channel; return whether there is one."""
        begin = self._held.lstrip()
        if len(self._held) - len(begin) > _LONGEST_LINE:
            return False
        opening, bare_end = _OPENING.match(begin), begin.find(_BARE_END) if begin.startswith(_BARE) else -1
        if opening is not None:
            told = opening["heading"] or ""
            self._inside = ">" if told else begin[0]
            self._fence, self._depth = opening["fence"] or "", 1
            self.thinking += told
            self._held = begin[len(told) if self._inside == ">" else opening.end() :]
        elif bare_end >= 0:
            self.thinking += begin[len(_BARE) : bare_end]
            self._held = begin[bare_end + len(_BARE_END) :]
        else:
            return False
        self.has_any = True
        return True

    def _read_details(self) -> bool:
        """Take what is held as thinking, as far as it is; return whether that has ended."""
        end = _DETAILS_END.search(self._held)
        certain = max(0, len(self._held) - _KEPT) if end is None else end.start()
        self.thinking += self._held[:certain]
        self._held = self._held[certain if end is None else end.end() :]
        self._inside = "<" if end is None else ""
        return end is not None

    def _read_lines(self, ends: bool) -> bool:
        """The same for a fence or a quote, line by line."""
        while self._held:
            line, newline, rest = self._held.partition("\n")
            if self._inside == ">":
                begin = line.lstrip()
                if begin and not begin.startswith(">"):
                    self._inside = ""
                    return True
                line = begin.removeprefix(">").removeprefix(" ")
            if not (newline or ends):
                return False
            self._held = rest
            if self._inside != ">" and self._closes(line.rstrip()):
                self.thinking += line.rstrip().removesuffix(self._fence)
                self._inside = ""
                return True
            self.thinking += line + newline
        return False

    def _closes(self, line: str) -> bool:
        """Whether a line ends the fence; fences within are counted."""
        if line.count(self._fence) == 1:
            self._depth += -1 if line.endswith(self._fence) else line.lstrip().startswith(self._fence)
        return self._depth == 0


def _may_open(held: str) -> bool:
    """Whether more text can turn the beginning of a reply, which opens no fold yet, into one that does."""
    begin = held.lstrip()
    if not begin or len(held) - len(begin) > _LONGEST_LINE:
        return len(held) <= _LONGEST_LINE
    if begin.startswith(_BARE) or _BARE.startswith(begin):
        return True
    if begin[0] not in "`~>*_#<" or len(begin) > _LONGEST_OPENING:
        return False
    if begin[0] == "<":
        return begin[: len(_DETAILS)].lower() == _DETAILS[: len(begin)]
    if "\n" in begin:
        return _ALONE.fullmatch(begin) is not None
    word = _BEFORE_THE_NAME.sub("", begin, count=1).lower()
    return len(begin) <= _LONGEST_LINE and any(word.startswith(one) or one.startswith(word) for one in _NAMES_BEGIN)
