"""What a prompt and its reply must fit together, and how tokens are counted for that."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from bundle.checkpoints import TokenCounter, estimating_counter
from bundle.errors import UsageError
from bundle.runs.record import ContextRecord
from bundle.system.text import plural
from bundle.tasks.prompts import Message

_LEAST_SHARE: Final = 4
"""A reply is left a quarter of the context, or as much as it may take if that is less. To leave it all that a default
of 2,048 tokens allows would cost short contexts all their examples, for replies of a few tokens."""


class ContextLimit(NamedTuple):
    """Maximum tokens of a prompt and its reply together, and what says so, such as ``--session-len``."""

    tokens: int
    source: str


class Fit:
    """Measures prompts against the smallest of several limits.

    Args:
        limits: At least one.
        make_counter: Makes what counts tokens, or None where no vocabulary can be read; called if a prompt may be too
            long.

    Counting takes a process of its own, so texts are counted all at once: prompts are measured, with all unknown texts
    taken for empty, and measured again after `count_unknown`, until that finds none.
    """

    def __init__(self, limits: Iterable[ContextLimit], make_counter: Callable[[], TokenCounter | None]) -> None:
        self.limit = min(limits)
        self._make_counter = make_counter
        self._counter: TokenCounter | None = None
        self._counted: dict[str, int] = {}
        self._unknown: dict[str, None] = {}

    def require_room(self, max_out_len: int) -> None:
        """Refuse a ``--max-out-len`` that leaves no room for any prompt. Raises UsageError."""
        if max_out_len >= self.limit.tokens:
            raise UsageError(
                f"--max-out-len {max_out_len} leaves no room for a prompt in a context of {self.limit.tokens} tokens "
                f"({self.limit.source}).",
                remedy="Lower --max-out-len, or raise the context length.",
            )

    def fits(self, messages: Sequence[Message], *, max_out_len: int) -> bool:
        """Whether a prompt leaves enough for a reply."""
        return self._leaves(messages, self._least(max_out_len))

    def left(self, messages: Sequence[Message], *, max_out_len: int) -> int | None:
        """How many tokens a prompt leaves for its reply; None where that is enough for the longest one."""
        if self._leaves(messages, max_out_len):
            return None
        return max(self._least(max_out_len), self.limit.tokens - self.count(messages))

    def _least(self, max_out_len: int) -> int:
        return max(1, min(max_out_len, self.limit.tokens // _LEAST_SHARE))

    def _leaves(self, messages: Sequence[Message], tokens: int) -> bool:
        room = self.limit.tokens - tokens
        return TokenCounter.at_most(messages) <= room or self.count(messages) <= room

    def count(self, messages: Sequence[Message]) -> int:
        """Not fewer than the tokens of a prompt; 0 as long as it holds a text that is unknown."""
        texts = [one["content"] for one in messages]
        if unknown := [text for text in texts if text not in self._counted]:
            self._unknown.update(dict.fromkeys(unknown))
            return 0
        return TokenCounter.total([self._counted[text] for text in texts])

    def count_unknown(self) -> bool:
        """Count the texts that `count` did not know; whether there were any. Raises TokenizerError."""
        if not self._unknown:
            return False
        if self._counter is None:
            self._counter = self._make_counter() or estimating_counter()
        texts = list(self._unknown)
        self._unknown.clear()
        self._counted |= zip(texts, self._counter.of_texts(texts), strict=True)
        return True

    @property
    def record(self) -> ContextRecord:
        """For ``run.json``, once all prompts were measured."""
        return ContextRecord(
            max_tokens=self.limit.tokens,
            set_by=self.limit.source,
            counted_with=None if self._counter is None else self._counter.source,
        )

    def says(self, shortened: int, questions: int) -> Iterator[str]:
        """What a user should know of it, in lines: ``shortened`` of the questions lack examples of their task."""
        if self._counter is not None and self._counter.is_estimate:
            yield f"prompt lengths are {self._counter.source}; `eval-remote --tokenizer DIR` counts exactly"
        if shortened:
            fewer = (
                f"{shortened} of {plural(questions, 'question')} {'has' if shortened == 1 else 'have'} fewer examples"
            )
            yield f"{fewer}, to fit {self.limit.tokens} tokens ({self.limit.source})"
