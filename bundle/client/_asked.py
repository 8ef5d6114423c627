"""One question on its way to a server, through all its attempts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.client._early_decisions import EarlyDecisions, Receiver
from bundle.client._faults import AttemptError
from bundle.tasks.prompts import Message


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
