"""What the simulated model says: the same to the same question, token by token."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.parameters import Replying

_BECAUSE = (
    "因为",
    "题",
    "中",
    "所",
    "说",
    "的",
    "情况",
    "与",
    "其余",
    "几",
    "项",
    "都",
    "不",
    "相符",
    "，",
    "再",
    "看",
)
_THEREFORE = ("所以", "答案", "是")


@dataclass(frozen=True, slots=True)
class SimulatedReply:
    """A reply.

    Attributes:
        tokens: Its text in pieces; the token that ends it is not among them.
        decided_after: How many tokens there are when the letter has been said.
    """

    tokens: tuple[str, ...]
    decided_after: int

    @property
    def steps(self) -> int:
        """Decoding steps it takes, the token that ends it included."""
        return len(self.tokens) + 1


def letter_for(question: str) -> str:
    """The letter the model says to a question: any, but always the same."""
    return "ABCD"[zlib.crc32(question.encode()) & 3]


@lru_cache(maxsize=64)
def reply_with(letter: str, replying: Replying) -> SimulatedReply:
    """The reply that says this letter."""
    if replying.style == "letter":
        return SimulatedReply((letter,), 1)
    if replying.style == "sentence":
        return SimulatedReply(("答案", "是", letter, "。"), 3)
    filled = (_BECAUSE * (replying.tokens // len(_BECAUSE) + 1))[: replying.tokens]
    if replying.style == "explaining":
        return SimulatedReply((letter, "。", *filled[:-2]), 1)
    explained = filled[: replying.tokens - len(_THEREFORE) - 2]
    return SimulatedReply((*explained, *_THEREFORE, letter, "。"), replying.tokens - 1)
