"""A reply that comes in pieces, read by a task's answer rule as it comes."""

from collections.abc import Mapping
from typing import Any

from bundle.client.faults import AttemptError, Fate
from bundle.client.thinking import ThinkingSplitter
from bundle.tasks.answers import AnswerRule


class StreamedReply:
    """Takes the events of one streamed chat completion.

    Args:
        rule: What counts as the answer.

    Attributes:
        pieces: How many events brought a part of the reply: with most servers one a token.
        pieces_to_decide: How many of them it took until the answer was certain; None while it is not.
        ended: Whether the server has said why it stopped.
    """

    def __init__(self, rule: AnswerRule) -> None:
        self._rule = rule
        self._reader = rule.reader()
        self._splitter = ThinkingSplitter()
        self._read = ""
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._finish_reason: str | None = None
        self._usage: Any = None
        self._strange: object = None
        self.pieces = 0
        self.pieces_to_decide: int | None = None
        self.ended = False

    @property
    def took_text_back(self) -> bool:
        """Whether text turned out to be thinking.

        Where a model's template opens its thinking, what comes before ``</think>`` looks like text until then, and no
        decision can be trusted before the end.
        """
        return self._splitter.took_text_back

    @property
    def text(self) -> str:
        """The text so far, without thinking."""
        return self._splitter.text

    @property
    def thinking(self) -> str | None:
        """The thinking so far, None where there is none."""
        thinking = "".join(self._thinking) + self._splitter.thinking
        return thinking if thinking.strip() else None

    def take(self, event: Any) -> None:
        """Take the next event. One that is no chunk of a chat completion is kept for `body`, which shows it."""
        try:
            self._usage = event.get("usage") or self._usage
            if not event["choices"]:
                return
            choice = event["choices"][0]
            delta: Mapping[str, Any] = choice.get("delta") or {}
            content, said_apart = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
            finish_reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            self._strange = event
            return
        if isinstance(said_apart, str) and said_apart:
            self._thinking.append(said_apart)
            self.pieces += 1
        if isinstance(content, str) and content:
            self._content.append(content)
            self.pieces += 1
            self._decide(content)
        if finish_reason is not None:
            self._finish_reason, self.ended = finish_reason, True

    def body(self) -> object:
        """What the server would have answered to a request that is not streamed.

        Raises:
            AttemptError: The reply broke off.
        """
        if self._strange is not None:
            return self._strange
        if not self.ended:
            raise AttemptError("the reply broke off before its end", Fate.AGAIN)
        message = {"content": "".join(self._content), "reasoning_content": "".join(self._thinking) or None}
        return {"choices": [{"message": message, "finish_reason": self._finish_reason}], "usage": self._usage}

    def _decide(self, content: str) -> None:
        text = self._splitter.feed(content)
        if not text.startswith(self._read):
            self._reader, self._read, self.pieces_to_decide = self._rule.reader(), "", None
        piece, self._read = text[len(self._read) :], text
        if piece and self.pieces_to_decide is None and self._reader.feed(piece) is not None:
            self.pieces_to_decide = self.pieces
