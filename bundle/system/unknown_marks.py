"""Marks in a reply that may open or close a model's thinking, though they are not among those that are known."""

import re
from typing import Final

_OPENING: Final = re.compile(
    r"\s*(\*Thinking(?:\.{3}|…)\*"  # Poe
    r"|&lt;[A-Za-z]\w{2,40}&gt;|＜[A-Za-z]\w{2,40}＞|<[A-Za-z]\w{2,40}\s>"
    r"|<\|?/?[A-Za-z][\w:.|-]{2,40}>|\[/?[A-Z][A-Z_]{3,40}\]|◁\w{3,40}▷|【思[考维][^】]{0,10}】)"
)
_NOT_THINKING: Final = re.compile(r"answer|final|response|output|result|html|div|span|sub|sup|math", re.IGNORECASE)

# Such things may be part of a text, so that they must begin or end a line.
_TAG: Final = (
    r"</\s?[A-Za-z][\w:.-]{2,40}\s?>|(?-i:\[/[A-Z][A-Z_]{3,40}\])|【/[^】\n]{1,10}】|【思[考维][^】\n]{0,10}结束】"
)
_CLOSING: Final = re.compile(
    r"(?P<answer><\|?(?:begin_of_|start_of_)?(?:final_?)?(?:answer|solution|response)\|?>)"
    r"|<\|(?:/[\w:-]{3,40}|end[\w-]{2,40}|[\w-]{2,40}_end)\|>|<[a-z]{3,20}\|>|◁/\w{3,40}▷"
    rf"|(?<![^\n])(?:{_TAG})|(?:{_TAG})(?=[ \t\r]*(?:\n|\Z))",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"\w[\w:.-]*")
# Of turns and texts, as servers leave them in.
_ENDS_TURN: Final = re.compile(r"text|turn|sentence|utterance|header|message|im_end|inst|role", re.IGNORECASE)
# HTML's elements of three letters and more, in the standard's order, and some of old pages.
_HTML: Final = re.compile(
    "abbr|address|area|article|aside|audio|base|bdi|bdo|blockquote|body|button|canvas|caption|cite|code|col|colgroup|"
    "data|datalist|del|details|dfn|dialog|div|embed|fieldset|figcaption|figure|footer|form|head|header|hgroup|html|"
    "iframe|img|input|ins|kbd|label|legend|link|main|map|mark|menu|meta|meter|nav|noscript|object|optgroup|option|"
    "output|picture|pre|progress|ruby|samp|script|search|section|select|slot|small|source|span|strong|style|sub|"
    "summary|sup|table|tbody|template|textarea|tfoot|thead|time|title|track|var|video|wbr|math|svg|"
    "big|center|font|frame|frameset|marquee|param|strike",
    re.IGNORECASE,
)


def opening_mark(reply: str) -> str | None:
    """A tag or token that a reply begins with and that may open a model's thinking; None for none."""
    found = _OPENING.match(reply)
    return None if found is None or _NOT_THINKING.search(found[1]) else found[1]


def closing_mark(reply: str) -> re.Match[str] | None:
    """The first mark within a reply that may end a thinking that the chat template has opened; None for none.

    It has text before and after it. It is a tag that is closed and was never opened, and of no HTML element; a token
    whose name says that something ends; or the tag that opens an answer after other text (group ``answer``).
    """
    if "<" not in reply and "[/" not in reply and "【" not in reply and "◁" not in reply:
        return None
    for found in _CLOSING.finditer(reply):
        mark = found[0]
        if not reply[: found.start()].strip():
            continue
        if not reply[found.end() :].strip():
            return None
        if found["answer"] is not None:
            return found
        name = _NAME.search(mark)
        if name is None or any((_NOT_THINKING.search(mark), _ENDS_TURN.search(mark), _HTML.fullmatch(name[0]))):
            continue
        is_tag = mark.startswith(("</", "[/"))
        if is_tag and re.search(re.escape(mark[0] + name[0]) + r"\b", reply[: found.start()], re.IGNORECASE):
            continue
        return found
    return None
