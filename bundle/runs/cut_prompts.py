"""Prompts that a server silently truncated: it dropped their beginning, answered, and counted what was left.

Only the server's own token counts are compared with each other, so neither its tokenizer matters nor what it adds to
every prompt. Nothing is found where it counts only what its cache lacked, counts in steps or not at all, or truncates
all prompts alike: that looks like short prompts.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from bundle.runs.predictions import Prediction
from bundle.runs.statistics import least_slope
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key, Part

Sent = Callable[[Key], Sequence[Message] | None]
"""Gives the messages of a question, as they were sent; None where that is not known."""

_FEWEST: Final = 10
"""Prompts that have to show the same before it is taken for more than chance."""
_LONGER: Final = 1.6
"""A prompt is clearly longer by this factor: tokens per character differ by 20 % either way within a language."""
_LEAST: Final = 256
"""No server's limit is lower, in tokens."""


class _Counted(NamedTuple):
    """A prompt with the server's count of its tokens, and its length in characters and in bytes of UTF-8.

    Languages differ in their tokens per character and per byte, but not in both alike, so both have to agree.
    """

    part: Part
    tokens: int
    lengths: tuple[int, int]


class CountedPrompts:
    """The server's counts of the prompts of one task, a few bytes each."""

    def __init__(self, replies: Iterable[Prediction] = ()) -> None:
        self._counted: dict[Part, tuple[array[int], array[int]]] = {}
        for one in replies:
            self.add(one)

    def add(self, one: Prediction) -> None:
        """Note what a reply says of its prompt."""
        if one.prompt_tokens and not one.cached_tokens and one.losses is None:
            ids, tokens = self._counted.setdefault(one.part, (array("q"), array("q")))
            ids.append(one.id)
            tokens.append(one.prompt_tokens)

    def cut(self, sent: Sent) -> tuple[int, int]:
        """How many prompts were surely cut, at least; and the largest number of tokens that is counted in any."""
        counts = {tokens for _, of_part in self._counted.values() for tokens in of_part}
        most = max(counts, default=0)
        if len(counts) < 2 * _FEWEST or most < _LEAST:
            return 0, most
        counted = [
            _Counted(part, tokens, _lengths(messages))
            for part, of_part in self._counted.items()
            for number, tokens in zip(*of_part, strict=True)
            if (messages := sent(Key(*part, number))) is not None
        ]
        if len(counted) < 4 * _FEWEST:
            return 0, most
        cut = max(_at_the_limit(counted, most), _beyond_it(counted, most))
        return cut if cut >= _FEWEST else 0, most


def _lengths(messages: Sequence[Message]) -> tuple[int, int]:
    text = "".join(one["content"] for one in messages)
    return len(text), len(text.encode(errors="replace"))


def _at_the_limit(counted: Sequence[_Counted], most: int) -> int:
    """Those that have exactly the largest count, as clearly shorter ones have: their texts were cut to the token."""
    full = [one.lengths for one in counted if one.tokens == most]
    if len(full) < 2 * _FEWEST:
        return 0
    chars, octets = (sorted(lengths)[_FEWEST - 1] for lengths in zip(*full, strict=True))
    return sum(one[0] > _LONGER * chars and one[1] > _LONGER * octets for one in full)


def _beyond_it(counted: Sequence[_Counted], most: int) -> int:
    """Those that should have far more than the largest count: whole messages were dropped until the rest fitted.

    They should by the tokens per length of the task's shortest prompts, and also by what each further character adds
    within their subject, whose language and style they share. And prompts that should have less have no less.
    """
    rates = [_rate(counted, unit) for unit in (0, 1)]
    whole = sorted(one.tokens for one in counted if _by(rates, one, max) <= most)
    if len(whole) < _FEWEST:
        return 0
    subjects: dict[Part, list[_Counted]] = defaultdict(list)
    for one in counted:
        subjects[one.part].append(one)
    cut = 0
    for of_subject in subjects.values():
        counts = [one.tokens for one in of_subject]
        slopes = [least_slope(lengths, counts) for lengths in zip(*(one.lengths for one in of_subject), strict=True)]
        cut += sum(
            # A low count more likely means that the rest was in the server's cache.
            most / 2 < one.tokens <= whole[-_FEWEST]
            and _by(rates, one, min) > _LONGER * most
            and _by(slopes, one, min) > most
            for one in of_subject
        )
    return cut


def _by(rates: Sequence[float], one: _Counted, either: Callable[[Iterable[float]], float]) -> float:
    """The tokens that it has at these rates per character and per byte."""
    return either(length * rate for length, rate in zip(one.lengths, rates, strict=True))


def _rate(counted: Sequence[_Counted], unit: int) -> float:
    shortest = sorted(counted, key=lambda one: one.lengths[unit])[: max(2 * _FEWEST, len(counted) // 10)]
    return sorted(one.tokens / max(1, one.lengths[unit]) for one in shortest)[len(shortest) // 4]
