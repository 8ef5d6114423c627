"""Asks a server through the worker beside it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from bundle.client import SCORING, EarlyDecisions, LastMinute, Reply, ScoringRoad
from bundle.fleet.link import Link
from bundle.fleet.wire import reply_from_json
from bundle.tasks.prompts import Message


class DistantClient:
    """What `ChatClient` is for a server on this machine: see `bundle.client.Client`."""

    learned_qps = None
    tls = False
    changes: Sequence[str] = ()

    def __init__(self, link: Link, scoring: ScoringRoad) -> None:
        self.scoring = SCORING[scoring]
        self._link = link
        self._sent = LastMinute()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """There is nothing to close: the worker ends with its server."""

    @property
    def achieved_qpm(self) -> float:
        return float(len(self._sent))

    def send_always(self, fields: Mapping[str, Any]) -> None:
        self._link.tell("send_always", dict(fields))

    async def prefix_cache_hit_rate(self) -> float | None:
        rate: float | None = await self._link.call("prefix_cache_hit_rate")
        return rate

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
    ) -> Reply:
        self._sent.add()
        told = None if reading is None or reading.thinks_aloud else reading.to_json()
        asked = messages, max_out_len, dict(fields), path, told
        values, self.changes = await self._link.call("ask", *asked, begun=begun)
        reply = reply_from_json(values)
        if reading is not None:
            reading.heard(reply)
        return reply
