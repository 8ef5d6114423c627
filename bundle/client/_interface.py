"""What an evaluation wants of a client: `ChatClient` asks a server itself, others have it asked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Protocol

from bundle.client._early_decisions import EarlyDecisions
from bundle.client._replies import Reply
from bundle.client._settings import Scoring
from bundle.tasks.prompts import Message


class Client(AbstractAsyncContextManager["Client"], Protocol):
    """Asks one model on one server; see `ChatClient`."""

    @property
    def tls(self) -> bool: ...

    @property
    def scoring(self) -> Scoring: ...

    @property
    def achieved_qpm(self) -> float: ...

    @property
    def learned_qps(self) -> float | None: ...

    @property
    def changes(self) -> Sequence[str]: ...

    def send_always(self, fields: Mapping[str, Any]) -> None: ...

    async def prefix_cache_hit_rate(self) -> float | None: ...

    async def ask(
        self,
        messages: Sequence[Message],
        max_out_len: int,
        *,
        fields: Mapping[str, Any] = MappingProxyType({}),
        path: str | None = None,
        reading: EarlyDecisions | None = None,
        begun: Callable[[], None] = lambda: None,
        busy: Callable[[int], None] = lambda in_hand: None,
    ) -> Reply: ...
