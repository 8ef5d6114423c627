r"""Text for people: untrusted text made safe to show, and suggestions for mistyped names.

A model's reply, a server's log, a file's name or a cell of a table can hold what a terminal obeys (escape sequences),
what changes how the rest is read (bidirectional marks, line separators) and what is invisible (zero-width characters,
tags). Such characters are written as Python would write them (``\x1b``, ``\u202e``), so that they show and do nothing.
Chinese, emoji and combining text stay as they are.
"""

import datetime
import hashlib
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import Final

_JOINERS: Final = "\u200c\u200d"
_EMOJI_JOINER: Final = "\u200d"

# Of Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt) all but variation selectors, which are seen to
# below; then line and paragraph separators, interlinear annotations, halves of characters, private use and what cannot
# be a character at all. Unassigned code points are left alone: new emoji are among them for an older Python.
_UNSEEN: Final = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
    r"\U000f0000-\U0010ffff"
)
_SELECTORS: Final = r"\ufe00-\ufe0f\U000e0100-\U000e01ef"
# The flags of England, Scotland and Wales are the emoji that are spelt with tags (emoji-sequences.txt).
_FLAG: Final = (
    "\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|"
    "\U000e0077\U000e006c\U000e0073)\U000e007f"
)
# A variation selector chooses the form of the character before it; one more has nothing to choose, and of such runs
# hidden messages are made.
_TO_ESCAPE: Final = re.compile(f"{_FLAG}|[{_UNSEEN}]|(?:^|(?<=[{_SELECTORS}{_UNSEEN}\\s]))[{_SELECTORS}]")

_VIRAMA: Final = 9  # the canonical combining class
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    """``text`` in one line, with every character that is not simply shown made visible; its length may grow."""
    if text.isascii() and text.isprintable():
        return text
    return _TO_ESCAPE.sub(_shown, text)


def one_line(text: str, longest: int = 300) -> str:
    """``text`` made printable, all its white space one space each, and cut to at most ``longest`` characters."""
    # Ten times as much is enough to fill the line, and a reply may be megabytes.
    line = printable(" ".join(text[: 10 * longest].split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8; the name of a file whose bytes are not text cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted(text: object, longest: int = 80) -> str:
    """``text`` as Python writes it, in quotation marks; of a longer one no more than ``longest`` characters."""
    whole = str(text)
    return repr(whole if len(whole) <= longest else whole[: longest - 1] + "…")


def nearest(written: str, names: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names most like what was written, the most similar first; none that is less similar than ``cutoff``."""
    from difflib import SequenceMatcher  # only errors need it

    likeness = {name: SequenceMatcher(None, name, written).ratio() for name in names}
    # Of names that are as similar the first, as ceval_gen for ceval.
    return [name for name in sorted(likeness, key=likeness.__getitem__, reverse=True) if likeness[name] >= cutoff][
        :count
    ]


def did_you_mean(written: str, names: Iterable[str], otherwise: str = "", *, cutoff: float = 0.6) -> str:
    """A suggestion for a mistyped name, or ``otherwise`` where none is near."""
    near = nearest(written, names, cutoff=cutoff)
    if not near:
        return otherwise
    meant = printable(near[0])
    return f"Did you mean {meant if meant.strip() == near[0] else quoted(near[0])}?"  # white space is shown in quotes


def hanging(line: str, indent: int) -> str:
    """``line``; on a terminal broken between words, its further lines ``indent`` columns from the left."""
    if not sys.stdout.isatty():
        return line
    width, indented = shutil.get_terminal_size().columns, " " * indent
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indented, break_on_hyphens=False))


def shortened(name: str) -> str:
    """A name that is short enough for a file: of a longer one its beginning and a hash of the whole."""
    data, longest = name.encode(), 120  # file systems allow 255 bytes, encrypted ones 143; suffix and time need some
    if len(data) <= longest:
        return name
    return data[: longest - 9].decode(errors="ignore") + "-" + hashlib.sha256(data).hexdigest()[:8]


def plural(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 question", "1,346 questions", "2 replies"."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def duration(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "1 h", "2 h 30 min"."""
    if seconds < 120 and seconds % 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0)
    return " ".join(parts) or "0 s"


def time_in(seconds: float) -> str:
    """The local time in so many seconds, as in "15:42", and the day where that is another one."""
    now = datetime.datetime.now().astimezone()
    then = now + datetime.timedelta(seconds=seconds)
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")


def _shown(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) > 1 or (found in _JOINERS and _joins(match.string, match.start())):
        return found
    code = ord(found)
    if code < 0x100:
        return _SHORT.get(found, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _joins(text: str, place: int) -> bool:
    """Whether a joiner does its work: between parts of an emoji, or where a script needs it (RFC 5892, appendix A)."""
    before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
    if not before or not after:
        return False
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if text[place] == _EMOJI_JOINER:
        return _ends_emoji(before) and unicodedata.category(after) in ("So", "Cn")
    return unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"


def _ends_emoji(character: str) -> bool:
    # A symbol, a skin tone, or the selector that makes an emoji of a plain symbol.
    return unicodedata.category(character) in ("So", "Sk", "Cn") or character == "\ufe0f"


def size(count: float) -> str:
    """Bytes, in the largest unit that leaves a number above one: ``3.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age(seconds: float) -> str:
    """How old something is, in the unit that fits: ``3 min``, ``5 h``, ``40 days``."""
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
