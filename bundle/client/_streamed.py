"""A reply that arrives in pieces."""

import itertools
from typing import Any

from bundle.client._events import DONE
from bundle.client._faults import AttemptError, Fate, error_in_success, fault_of_body
from bundle.client._replies import Reply, content_of, count, require_no_error, unwrapped
from bundle.client._thinking import KNOWN_MARKS, ThinkingMarks, ThinkingSplitter
from bundle.tasks.answers import AnswerRule
from bundle.tasks.options import begins_no_word, is_option

_NO_END = ("", "null")
"""What servers also put into an event's ``finish_reason`` for "not yet"."""


class StreamedReply:
    """Collects the events of one streamed chat completion.

    Args:
        rule: What counts as the answer; None if only the complete reply matters.
        marks: What marks thinking.
        options: What the answer may be; "" for anything. Any other answer is not taken for final, nor is a letter that
            begins a word: the whole reply shows what was meant.

    Attributes:
        pieces: How many events carried part of the reply: with most servers one per token; a busy lmdeploy puts many
            tokens into one.
        pieces_to_decide: How many of them it took until the answer was final; None until then.
        ended: Whether the server has said that the reply is complete.
        has_clearly_ended: Whether nothing of it can follow. Some servers name an end in every event.
        model: The model that it names first; None for none.
        origin: The first id and time that it names; None for none.
    """

    def __init__(self, rule: AnswerRule | None = None, marks: ThinkingMarks = KNOWN_MARKS, options: str = "") -> None:
        self._rule = rule
        self._options = options
        self._reader = None if rule is None else rule.reader()
        self._marks = marks
        self._splitter = ThinkingSplitter(marks)
        self._read = ""
        self._content: list[str] = []
        self._may_repeat = True  # so far every piece begins with the one before
        self._grows = False  # and one is longer, so that each holds the whole text
        self._thinking: list[str] = []
        self._calls: list[object] | None = None
        self._is_done = False
        self._index: Any = None  # of the choice that is read
        self._has_others = False
        self._ends_often = False
        self._may_have_ended = False
        self._finish_reason: Any = None
        self._usage: Any = None
        self.pieces = 0
        self.pieces_to_decide: int | None = None
        self.ended = False
        self.has_clearly_ended = False
        self._ids: list[object] = []  # of the text so far, the last two that differ
        self.model: Any = None
        self.origin: tuple[Any, Any] = (None, None)

    @property
    def took_text_back(self) -> bool:
        """Whether text turned out to be thinking.

        If the chat template opens the thinking, everything before ``</think>`` looks like text until that arrives, so
        no decision can be trusted before the end.
        """
        return self._splitter.took_text_back

    @property
    def text(self) -> str:
        """The text so far, without thinking."""
        return self._splitter.text

    @property
    def thinking(self) -> str | None:
        """The thinking so far; None if there is none."""
        thinking = _joined(self._thinking) + self._splitter.thinking
        return thinking if thinking.strip() else None

    @property
    def completion_tokens(self) -> int | None:
        """The reply's tokens as the server counts them at its end; None where it does not say."""
        return count(self._usage, "completion_tokens")

    @property
    def names_end(self) -> bool:
        """Whether the server has said how the reply ended."""
        return self._finish_reason not in (None, *_NO_END)

    def take(self, event: Any) -> None:
        """Take the next event, or `DONE`. Raises AttemptError if it is an error, or not part of a chat completion."""
        if event is DONE:
            self.ended = self.has_clearly_ended = self._is_done = True
            return
        if self.ended and (self._is_done or not isinstance(event, dict)):
            return
        try:
            if "choices" not in event:
                event = unwrapped(event)
            choices = event["choices"]
            if not self.model:
                self.model = event.get("model")
                self.origin = event.get("id"), event.get("created")
            if event.get("usage"):
                self._usage = event["usage"]
            if not choices:
                if error_in_success(event) is not None:
                    raise fault_of_body(event)
                return
            if self._index is None:  # LiteLLM has counted from 1
                self._index = min(one.get("index") or 0 for one in choices)
            choice = next((one for one in choices if (one.get("index") or 0) == self._index), None)
            if choice is None:
                self._has_others = True
                return
            if not self.ended:
                require_no_error(event, choice)
            delta = choice.get("delta")
            if delta is None:
                said_at_once = choice.get("message") or {}
                delta = {"content": choice["text"]} if "text" in choice else self._unsaid(said_at_once)
            content, thinking = content_of(delta)
            if isinstance(calls := delta.get("tool_calls"), list):
                self._calls = [*(self._calls or []), *calls]
            finish_reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise fault_of_body(event) from None
        if thinking:
            self._thinking.append(thinking)
            self.pieces += 1
        if content:
            self._require_same_reply(event.get("id"))
            self._content.append(content)
            self.pieces += 1
            self._decide(content)
        self._note_end(finish_reason, has_more=bool(thinking or content))

    def body(self) -> object:
        """What the server would have answered to a request without streaming.

        Raises AttemptError if the reply broke off.
        """
        if not (self.ended or self._may_have_ended):
            raise AttemptError("the reply broke off", Fate.AGAIN)
        if self._has_others and not self.names_end:  # the index may count events
            raise AttemptError("the reply has several choices, of which the first does not end", Fate.AGAIN)
        message = {
            "content": self._content[-1] if self._grows else "".join(self._content),
            "reasoning_content": _joined(self._thinking) or None,
            "tool_calls": self._calls,
        }
        choice = {"message": message, "finish_reason": self._finish_reason}
        named, created = self.origin
        return {"choices": [choice], "usage": self._usage, "model": self.model, "id": named, "created": created}

    def stopped_early(self, *, latency_s: float, attempts: int) -> Reply:
        """The reply so far, whose answer is final; servers count tokens at the end."""
        return Reply(
            text=self.text,
            finish_reason=None,
            prompt_tokens=None,
            completion_tokens=None,
            cached_tokens=None,
            latency_s=latency_s,
            attempts=attempts,
            thinking=self.thinking,
            decided_early=True,
            chunks=self.pieces,
            model=self.model,
        )

    def _require_same_reply(self, named: object) -> None:
        """Check that the text is of one reply: if another's has come between, its id is followed by the one before.

        Raises AttemptError if it has. Some servers give every event an id of its own, or those without text.
        """
        if named and self._ids[-1:] != [named]:
            if named in self._ids[-2:]:
                raise AttemptError("the stream holds parts of another reply, with an id of their own", Fate.AGAIN)
            self._ids = [*self._ids[-1:], named]

    def _unsaid(self, message: Any) -> Any:
        """A whole message in place of a delta: as it is, or empty if it repeats what has come in pieces."""
        return {} if self._content and message.get("content") == "".join(self._content) else message

    def _note_end(self, word: Any, *, has_more: bool) -> None:
        """Note how an event says that the reply has ended, if it does.

        SGLang and Ollama have put "" into every event, LiteLLM and Open WebUI "stop".
        """
        is_vague = word in _NO_END
        if word is not None and (self._finish_reason is None or not is_vague):
            self._finish_reason = word
        if has_more and self.ended:
            self._ends_often = True
        if has_more or not self.ended:
            self.ended = word is not None and not is_vague and not (has_more and self._ends_often)
            self.has_clearly_ended = self.ended and self.pieces > 0 and not (has_more or self._ends_often)
            self._may_have_ended = word is not None and not has_more

    def _decide(self, content: str) -> None:
        if self._may_repeat and len(self._content) > 1:
            before, grew = self._content[-2], self._grows
            self._may_repeat = content.startswith(before)
            self._grows = self._may_repeat and (grew or len(content) > len(before))
            if self._grows or grew:  # what has been read is not the text of the pieces
                self._splitter = ThinkingSplitter(self._marks)
                content = content if self._grows else "".join(self._content)
        text = self._splitter.feed(content)
        if self._rule is None or (self._may_repeat and len(self._content) > 1):
            return  # in the second case it is not certain what the text is
        if not text.startswith(self._read):
            self._reader, self._read, self.pieces_to_decide = self._rule.reader(), "", None
        piece, self._read = text[len(self._read) :], text
        if piece and self.pieces_to_decide is None and self._reader is not None:
            answer = self._reader.feed(piece)
            if answer is not None and is_option(answer, self._options) and begins_no_word(answer, text):
                self.pieces_to_decide = self.pieces


def _joined(pieces: list[str]) -> str:
    """The text of a stream's pieces; some servers send in each all that came before, too.

    Such pieces begin with the one before and grow. Nothing else does but repetitions of the very first piece, such as
    "A" and "AA", which are taken for the text "AA".
    """
    grows = len(pieces) > 1 and len(pieces[-1]) > len(pieces[0])
    if grows and all(one.startswith(before) for before, one in itertools.pairwise(pieces)):
        return pieces[-1]
    return "".join(pieces)
