"""How servers are asked how likely a text is, token by token: none does it as another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

ScoringRoad = Literal["echo", "generate"]


@dataclass(frozen=True, slots=True)
class Scoring:
    """A way to ask.

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


def as_completion(body: object) -> object:
    """A response of ``/generate`` as one of ``/completions`` with ``echo``; any other as it is.

    It holds a pair for every token of the text but the first, which nothing comes before: log-probability and id.
    """
    meta = body.get("meta_info") if isinstance(body, Mapping) else None
    pairs = meta.get("input_token_logprobs") if isinstance(meta, Mapping) else None
    if not isinstance(meta, Mapping) or not isinstance(pairs, list):
        return body
    values = [pair[0] if isinstance(pair, list) and pair else None for pair in pairs]
    usage = {name: meta.get(name) for name in ("prompt_tokens", "completion_tokens")}
    choice = {"index": 0, "text": "", "finish_reason": "stop", "logprobs": {"token_logprobs": [None, *values]}}
    return {"choices": [choice], "usage": usage}
