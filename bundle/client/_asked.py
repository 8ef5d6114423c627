"""One question on its way to a server, through all its attempts, and what receives the events of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.client._early_decisions import EarlyDecisions
from bundle.client._faults import AttemptError
from bundle.client._replies import Reply, require_model
from bundle.client._streamed import StreamedReply
from bundle.client._thinking import KNOWN_MARKS, ThinkingMarks
from bundle.tasks.prompts import Message


@dataclass(slots=True)
class Receiver:
    """Takes the events of one response, if it has any, and says when they are enough.

    Attributes:
        reading: Decides when they are; None for the complete reply.
        begun: Called when the reply starts to arrive.
        only_model: The only model whose reply is accepted; None for any.
        marks: What marks thinking.
        reply: What has been received; None if there were no events.
        is_cut: Whether that was enough before the end.
    """

    reading: EarlyDecisions | None
    begun: Callable[[], None]
    only_model: str | None
    marks: ThinkingMarks = KNOWN_MARKS
    reply: StreamedReply | None = None
    is_cut: bool = False

    @property
    def ended(self) -> bool:
        return self.reply is not None and self.reply.ended

    @property
    def has_clearly_ended(self) -> bool:
        return self.reply is not None and self.reply.has_clearly_ended

    @property
    def has_text(self) -> bool:
        """Whether any of the text has come, thinking aside."""
        return self.reply is not None and bool(self.reply.text)

    def take(self, event: object) -> bool:
        require_model(event, self.only_model)
        reply = self.reply
        if reply is None:
            reply = self.reply = (
                StreamedReply(None, self.marks) if self.reading is None else self.reading.begin(self.marks)
            )
        reply.take(event)
        if reply.pieces == 1:
            self.begun()
        if self.reading is not None and self.reading.is_enough(reply):
            self.is_cut = True
        return not self.is_cut

    def learn(self, reply: Reply) -> None:
        """Let `EarlyDecisions` learn from a reply."""
        if self.reading is None:
            return
        if self.reply is not None:
            self.reading.streamed(self.reply, cut=self.is_cut)
        else:
            self.reading.whole(reply.completion_tokens, reply.text, took_text_back=reply.took_text_back)


@dataclass(slots=True)
class Asked:
    """One question on its way.

    Attributes:
        url: Where it is asked.
        fields: Further fields of its requests.
        body: Its request, but for the end, as built by the `RequestBody` of this ``version``.
        streams: Whether its last attempt asked for a stream.
        refusal: What it met before it was asked the other way, with or without a stream.
        is_trial: Whether it is the one question that is asked the other way to see whether the server takes that.
        attempts: How many times it was asked, not counting another key or another form.
        tries: How many of these failed and count towards its retries.
        refusals: How many times it was refused as one too many, by chance as it seems.
        sent_at: When it was last sent, on the event loop's clock.
    """

    url: str
    messages: Sequence[Message]
    max_out_len: int
    fields: Mapping[str, Any]
    reading: EarlyDecisions | None
    begun: Callable[[], None]
    body: bytes = b""
    version: int = -1
    streams: bool = False
    refusal: AttemptError | None = None
    is_trial: bool = False
    attempts: int = 1
    tries: int = 0
    refusals: int = 0
    sent_at: float = 0.0
    receiver: Receiver | None = None
