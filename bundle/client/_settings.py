"""Where a model is served, and how it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Streaming = Literal["auto", "always", "never"]
ScoringRoad = Literal["echo", "generate"]
"""How a server is asked how likely a text is, token by token: none does it as another."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """A way to ask how likely a text is.

    Attributes:
        fields: What a request says besides the text.
        max_out_len: How many tokens it asks for.
        path: Where it is sent, from the server's root; None for ``/completions``.
    """

    fields: Mapping[str, Any]
    max_out_len: int
    path: str | None = None


SCORING: Final[Mapping[ScoringRoad, Scoring]] = {
    "echo": Scoring({"echo": True, "logprobs": 1}, 1),
    # lmdeploy's own, since 0.18 and of its PyTorch engine alone.
    "generate": Scoring({"return_logprob": True, "logprob_start_len": 0}, 0, "/generate"),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and what every request to it says.

    Attributes:
        base_url: What ``/chat/completions`` is below, or ``/completions`` for a plain prompt; see `normalise_base_url`.
        keys: Sent as bearer tokens, in rotation; empty for a server without keys.
        headers: Sent with every request.
        secrets: What must not be shown, besides the keys.
        ours: Whether it is a server of our own: no proxy stands before it, and its replies name the model that was
            asked for. Others answer "gpt-4o" with "gpt-4o-2024-08-06".
    """

    base_url: str
    keys: Sequence[str] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    ours: bool = False

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.base_url.startswith("https:")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How a model is asked.

    Attributes:
        temperature: 0 for greedy decoding.
        timeout_s: Maximum duration of an attempt, without the wait for its turn.
        retries: Maximum retries of a question after transient faults.
        qps: Maximum requests per second, counting every attempt; None for no limit.
        patience_s: For how long without any reply rate limits and outages cost no retry: they pause all requests, and
            then end the run. With 0 they count like other faults, for a server whose death is noticed in another way.
        stream: Whether replies are streamed; "auto" for whatever costs less and the server accepts.
        extra_body: Further fields of every request, which are never left out.
        answer_from_thinking: Whether thinking becomes the reply's text if there is no other.
        thinking: The opening and the closing mark around thinking, where the user declares them.
        scoring: How the server is asked how likely a text is.
    """

    temperature: float
    timeout_s: float
    retries: int
    qps: float | None = None
    patience_s: float = 0.0
    stream: Streaming = "auto"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    answer_from_thinking: bool = False
    thinking: tuple[str, str] | None = None
    scoring: ScoringRoad = "echo"
