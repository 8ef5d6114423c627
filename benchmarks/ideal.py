"""How long the same requests take when nothing but the simulated server costs time."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.batching import Engine, Request
from benchmarks.parameters import Parameters
from benchmarks.prefix_cache import PrefixCache
from benchmarks.replies import reply_with


@dataclass(frozen=True, slots=True)
class Ideal:
    """The ideal duration of a request phase.

    Attributes:
        whole_s: Seconds with replies read to their end.
        cut_s: Seconds with every reply cut at the token that says the letter.
    """

    whole_s: float
    cut_s: float


def ideal(parameters: Parameters, requests: int, computed_tokens: int = 0) -> Ideal:
    """The ideal for this many requests, all of them there from the beginning, no slot ever waiting for a client.

    Args:
        parameters: What the server is like.
        requests: How many.
        computed_tokens: Tokens of all prompts together that a prefix cache without limit would leave to be computed;
            they count where prompts are costly, and are taken as spread evenly over the requests.
    """
    reply = reply_with("A", parameters.replying)
    tokens = [computed_tokens * (n + 1) // requests - computed_tokens * n // requests for n in range(requests)]
    return Ideal(
        whole_s=duration_s(parameters, [Request(one, (), reply.steps) for one in tokens]),
        cut_s=duration_s(parameters, [Request(one, (), reply.decided_after) for one in tokens]),
    )


def duration_s(parameters: Parameters, requests: Sequence[Request]) -> float:
    """Seconds until all of these are done, in this order, when all of them are there from the beginning."""
    engine = Engine(parameters.batching, PrefixCache(parameters.prefix_caching.blocks))
    for request in requests:
        engine.submit(request, 0.0)
    now = 0.0
    while (at := engine.next_event()) is not None:
        now = at
        engine.advance(at)
    return now
