"""A client for the tests of what it makes of a server's answers."""

from collections.abc import Callable, Sequence
from typing import Any

from bundle.client import ChatClient, Reply
from bundle.tasks.prompts import Message
from tests.patience import PATIENCE_S

MESSAGES: list[Message] = [{"role": "user", "content": "1+1=?\n答案: "}]


def client_of(
    url: str,
    *,
    keys: Sequence[str] = ("sk-test",),
    retries: int = 2,
    timeout_s: float = PATIENCE_S,
    proxies: bool = False,
    answer_from_thinking: bool = False,
    thinking: tuple[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
    **others: Any,
) -> ChatClient:
    """A client of the model "m"."""
    return ChatClient(
        url,
        keys,
        "m",
        temperature=0.0,
        timeout_s=timeout_s,
        retries=retries,
        proxies=proxies,
        answer_from_thinking=answer_from_thinking,
        thinking=thinking,
        say=say,
        **others,
    )


async def ask(client: ChatClient) -> Reply:
    """Ask what all these tests ask."""
    return await client.ask(MESSAGES, 64)
