"""A client for the tests of what it makes of a server's answers."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bundle.client import ChatClient, ClientSettings, Endpoint, Reply
from bundle.tasks.prompts import Message
from tests.patience import PATIENCE_S

MESSAGES: list[Message] = [{"role": "user", "content": "1+1=?\n答案: "}]


def client_of(
    url: str,
    *,
    keys: Sequence[str] = ("sk-test",),
    headers: Mapping[str, str] = MappingProxyType({}),
    secrets: Sequence[str] = (),
    ours: bool = False,
    say: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> ChatClient:
    """A client of the model "m"."""
    how = ClientSettings(**({"temperature": 0.0, "timeout_s": PATIENCE_S, "retries": 2} | settings))
    return ChatClient(Endpoint(url, keys, headers, secrets, ours), "m", how, say=say)


async def ask(client: ChatClient) -> Reply:
    """Ask what all these tests ask."""
    return await client.ask(MESSAGES, 64)
