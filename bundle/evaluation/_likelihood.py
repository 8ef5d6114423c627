"""How likely the options of a question are, as a server says it of texts that it is given."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bundle.client import RefusedError, Reply
from bundle.tasks.answers import Likeliest
from bundle.tasks.catalog import Question
from bundle.tasks.prompts import Message

if TYPE_CHECKING:  # imported late: slow, and a local server should start first
    from bundle.client import Client


async def option_losses(
    client: "Client", question: Question, rule: Likeliest, busy: Callable[[int], None]
) -> tuple[dict[str, float], Reply]:
    """Ask how likely a question's text is with each of the options.

    Returns the mean loss of the whole text with each, in nats per token; and the option with the lowest one as a reply,
    with the tokens of all requests.

    Raises NoReplyError if the server does not say it of this question, RefusedError if it says it of no text or refuses
    every question.
    """
    (message,) = question.messages
    how, replies = client.scoring, list[Reply]()
    for option in rule.options:  # one after the other: a question is one of the requests in flight, as any other
        text: Message = {"role": "text", "content": message["content"] + option}
        replies.append(await client.ask([text], how.max_out_len, fields=how.fields, path=how.path, busy=busy))
    losses = {option: _mean_loss(reply) for option, reply in zip(rule.options, replies, strict=True)}
    likeliest = min(losses, key=losses.__getitem__)
    return (
        losses,
        dataclasses.replace(
            replies[0],
            text=likeliest,
            finish_reason="stop",
            prompt_tokens=sum(reply.prompt_tokens or 0 for reply in replies),
            completion_tokens=sum(reply.completion_tokens or 0 for reply in replies),
            cached_tokens=None,
            latency_s=sum(reply.latency_s for reply in replies),
            attempts=max(reply.attempts for reply in replies),
            thinking=None,
            logprobs=None,
        ),
    )


def _mean_loss(reply: Reply) -> float:
    """The sum of the losses of all tokens but the first, which nothing comes before, by the number of all tokens.

    OpenCompass's ``HuggingFaceBaseModel.get_ppl`` (``opencompass/models/huggingface_above_v4_33.py``).
    Raises RefusedError if the server has not said it.
    """
    values: Any = reply.logprobs.get("token_logprobs") if isinstance(reply.logprobs, dict) else None
    count = reply.prompt_tokens
    if isinstance(values, list) and count and len(values) >= count:
        known = [value for value in values[1:count] if isinstance(value, int | float) and not math.isnan(value)]
        if any(value > 0 for value in known):
            raise RefusedError(
                "The server reports logits or other numbers above 0 as log-probabilities.",
                remedy="Leave out --logprobs-mode, which makes it do so.",
            )
        if len(known) == count - 1:
            return -math.fsum(known) / count
    raise RefusedError(
        "The server does not report log-probabilities of the prompt (echo with logprobs).",
        remedy="Use a server that does, such as vLLM's, or the same benchmark's _gen task.",
    )
