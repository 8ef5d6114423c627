"""API keys: used in turn, dropped once they are useless, and never shown."""

import re
from collections import deque
from collections.abc import Sequence

from bundle.client._faults import AttemptError, Fate
from bundle.client._pace import SharedPause

_WRONG_IN_A_ROW, _REFUSALS_IN_A_ROW = 3, 10
_REMEMBERED = 1 - 1 / 32
"""Of what was sent before, at every request: as if the last 32 counted."""
_SHARED = 8
_BLOCK = _SHARED // 2
_SHORTEST = 6
"""Characters of a secret that is hidden in a model's text, too; "EMPTY" or "test" is none."""
_HIDDEN = "***"
# How servers repeat a key: OpenAI's "sk-ab****cdef", and anything that starts like one of its keys.
_MASKED = re.compile(r"[\w.-]*\*{3,}[\w.-]*|\bsk-[\w.*…-]+")


class Key:
    """One key of a `KeyRing`.

    Attributes:
        value: The key; None for requests without one.
        position: Its position in the list, from 1.
        refusals: Consecutive refusals since its last reply; None before its first reply.
        pause: What the server's rate limit asks of requests with this key.
        share_refused: The share of its latest requests that were refused as too many, which are counted in `sent` and
            `refused`; those without an answer as yet were not.
    """

    def __init__(self, value: str | None, position: int) -> None:
        self.value = value
        self.position = position
        self.refusals: int | None = None
        self.pause = SharedPause()
        self._sent = self._refused = 0.0

    def __repr__(self) -> str:
        return f"Key({self.position})"

    def sent(self, now: float) -> None:
        """A request is sent with it."""
        self._sent = self._sent * _REMEMBERED + 1
        self._refused *= _REMEMBERED
        self.pause.sent(now)

    def refused(self) -> None:
        """A request was refused as one too many."""
        self._refused += 1

    @property
    def share_refused(self) -> float:
        return self._refused / self._sent if self._sent else 0.0

    def is_useless_after(self, fault: AttemptError) -> bool:
        """Whether a fault shows that all requests with this key are in vain.

        Of a key that has had replies, only several refusals in a row show it: one may concern one question, as when a
        gateway answers 403 to what its filter dislikes, and a wrong key may be a slip. A redirect, an unknown model or
        address and a gateway's page pass: they are those of a server or a gateway that is being restarted.
        """
        if self.refusals is None:
            return fault.fate in (Fate.REFUSED, Fate.KEY_SPENT)
        if fault.is_of_key:
            self.refusals += 1
            if self.refusals < _WRONG_IN_A_ROW:
                fault.fate = Fate.AGAIN
        elif fault.fate is Fate.REFUSED:
            fault.outage = fault.no_model or 300 <= fault.status < 400
            if fault.outage or fault.is_page:
                fault.fate = Fate.AGAIN
            else:
                self.refusals += 1
                return self.refusals >= _REFUSALS_IN_A_ROW
        return fault.fate is Fate.KEY_SPENT


class KeyRing:
    """Hands out keys in rotation; without any, one that is None. ``others`` are secret too, as is a header's value."""

    def __init__(self, values: Sequence[str], others: Sequence[str] = ()) -> None:
        keys = tuple(dict.fromkeys(values))
        self._secrets = (*keys, *others)
        self._keys = deque(Key(value, position) for position, value in enumerate(keys or (None,), 1))
        self.total = len(self._keys)

    @property
    def sends_a_key(self) -> bool:
        """Whether requests carry a key at all."""
        return bool(self._secrets)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self)} of {self.total})"

    def pause_s(self, now: float) -> float:
        """Seconds from now, in the event loop's time, until a key may be used; not positive if one may be used now."""
        return min(key.pause.left_s(now) for key in self._keys)

    def take(self, now: float = 0.0) -> Key:
        """The next key that need not pause, or if all must, the one that may be used first."""
        key = min(self._keys, key=lambda one: max(0.0, one.pause.left_s(now)))  # of several the first
        self._keys.rotate(-1 - self._keys.index(key))
        return key

    def drop(self, key: Key) -> bool:
        """Stop using a key; return whether it was still in use."""
        if key not in self._keys:
            return False
        self._keys.remove(key)
        return True

    def name(self, key: Key) -> str:
        """How messages refer to a key."""
        return "the key" if self.total == 1 else f"key {key.position} of {self.total}"

    def hide(self, text: str) -> str:
        """What a server says, with every secret in it (whole, in part or masked) replaced by ***."""
        for secret in self._secrets:
            text = _hide_one(text, secret)
        return _MASKED.sub(_HIDDEN, text)

    def hide_in_reply(self, text: str) -> str:
        """What a model says, or is called, with every secret in it replaced by ***, and otherwise as it is."""
        for secret in self._secrets:
            if len(secret) >= _SHORTEST:
                text = _hide_one(text, secret)
        return text


def _hide_one(text: str, key: str) -> str:
    """Replace what ``text`` shares with ``key``: eight consecutive characters, or all of a shorter key."""
    if len(key) < _SHARED:
        return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", _HIDDEN, text)
    # Eight consecutive characters hold one of these blocks whole: most texts hold none.
    if not any(key[start : start + _BLOCK] in text for start in range(0, len(key) - _BLOCK + 1, _BLOCK)):
        return text
    parts = {re.escape(key[start : start + _SHARED]) for start in range(len(key) - _SHARED + 1)}
    shown: list[str] = []
    end = 0
    for found in re.finditer(f"(?={'|'.join(parts)})", text):
        if not shown or found.start() > end:
            shown.append(text[end : found.start()])
        end = found.start() + _SHARED
    return _HIDDEN.join([*shown, text[end:]])
