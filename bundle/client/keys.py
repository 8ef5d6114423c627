"""API keys: used in turn, dropped when they are of no more use, and never told to anybody."""

import re
from collections.abc import Sequence

_SHARED = 8
_HIDDEN = "***"
# The forms in which servers repeat a key: OpenAI's "sk-ab****cdef", and anything that begins like one of its keys.
_MASKED = re.compile(r"[\w.-]*\*{3,}[\w.-]*|\bsk-[\w.*…-]+")


class Key:
    """One key of a `KeyRing`.

    Attributes:
        value: The key itself; None for requests without one.
        position: From 1, in the order the keys were given.
        refusals: Refusals in a row since its last reply; None while it has brought no reply at all.
    """

    def __init__(self, value: str | None, position: int) -> None:
        self.value = value
        self.position = position
        self.refusals: int | None = None

    def __repr__(self) -> str:
        return f"Key({self.position})"


class KeyRing:
    """The keys there are, in turn.

    Args:
        values: The keys; none for requests without one.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self._values = tuple(dict.fromkeys(values))
        self._keys = [Key(value, position) for position, value in enumerate(self._values or (None,), 1)]
        self.total = len(self._keys)
        self._next = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self)} of {self.total})"

    def take(self) -> Key:
        """The key whose turn it is.

        Raises:
            IndexError: None is left.
        """
        self._next = self._next % len(self._keys) if self._keys else 0
        key = self._keys[self._next]
        self._next += 1
        return key

    def drop(self, key: Key) -> bool:
        """Use this key no more; say whether it was in use until now."""
        if key not in self._keys:
            return False
        index = self._keys.index(key)
        del self._keys[index]
        if index < self._next:
            self._next -= 1
        return True

    def name(self, key: Key) -> str:
        """What a key can be called where anybody may read it."""
        return "the key" if self.total == 1 else f"key {key.position} of {self.total}"

    def hide(self, text: str) -> str:
        """``text`` with every key in it, whole, in part or masked, replaced by ***."""
        for value in self._values:
            text = _hide_one(text, value)
        return _MASKED.sub(_HIDDEN, text)


def _hide_one(text: str, key: str) -> str:
    """Replace what ``text`` has in common with ``key``: eight characters in a row, or all of a shorter key."""
    if len(key) < _SHARED:
        return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", _HIDDEN, text)
    parts = {key[start : start + _SHARED] for start in range(len(key) - _SHARED + 1)}
    hidden = [False] * len(text)
    for start in range(len(text) - _SHARED + 1):
        if text[start : start + _SHARED] in parts:
            hidden[start : start + _SHARED] = [True] * _SHARED
    pieces: list[str] = []
    for one, is_hidden in zip(text, hidden, strict=True):
        if not is_hidden:
            pieces.append(one)
        elif not pieces or pieces[-1] is not _HIDDEN:
            pieces.append(_HIDDEN)
    return "".join(pieces)
