"""One HTTP request to an OpenAI-compatible server: its parsed body, its events, or why there is neither."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bundle.client._addresses import is_loopback
from bundle.client._asked import Receiver
from bundle.client._connection_faults import chain, described, fault_of_connection
from bundle.client._connections import Answer, Connections
from bundle.client._events import BLANK, EventDecoder, is_event_stream
from bundle.client._faults import LOOPBACK_REMEDY, NETWORK_REMEDY, AttemptError, Fate, fault_of_status, unexpected
from bundle.client._json import charset_of, from_json
from bundle.client._origins import Repeats
from bundle.client._prepared import PreparedRequests
from bundle.client._settings import Endpoint
from bundle.system.network import proxy_for, wrong_scheme

_CONNECT_TIMEOUT_S = 15.0
_PROXY_LOGIN = 407
_ENOUGH = 4000
"""Characters of a server's text in which it says what is wrong."""
_AFTER_THE_END_S = 1.0
"""How long to wait for token counts and [DONE] after a reply's end."""
_AFTER_A_DOUBTFUL_END_S = 15.0
"""The same after an end that is said next to text, or before any: it may be said in every event."""

_LEAST_STALL_S = 30.0
_OF_THE_TIMEOUT, _LONGEST_GAPS = 0.1, 4.0
"""How long nothing may come in the middle of a text: the longest of these seconds, this part of the timeout, and so
many times the longest gap that there was."""


class _StalledError(TimeoutError):
    """A text stopped in the middle, and its connection stays open."""


class Transport:
    """Sends requests as the ``openai`` package makes them (see `PreparedRequests`), each once and within bounds.

    A request takes at most ``timeout_s`` seconds, from the first byte sent to the last one received. In the middle of a
    streamed text a silence ends it sooner; before, a model may be thinking, which not every server shows. The proxies
    that the environment names are used, but not for a server of our own or on loopback. Raises UsageError if the base
    URL, or a proxy or a file of certificates that the environment names, cannot be used.

    Attributes:
        in_flight: Requests whose response is not complete.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._base_url = endpoint.base_url
        self._timeout_s = timeout_s
        self._requests = PreparedRequests(endpoint)
        self._proxy = None if endpoint.ours or is_loopback(self._base_url) else proxy_for(self._base_url)
        self.in_flight = 0
        self._has_replied = False
        self._silent_since: float | None = None
        self._longest_gap_s = 0.0
        self._repeats = Repeats()
        connect_timeout_s = min(_CONNECT_TIMEOUT_S, timeout_s / 2)
        self._connections = Connections(self._proxy, tls=endpoint.tls, connect_timeout_s=connect_timeout_s)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()
        await self._requests.close()

    def silent_for(self) -> float:
        """For how many seconds requests have been in flight without a sign of any response.

        Neither a request that is given up nor the pause before it is retried ends the silence.
        """
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def get(self, path: str, key: str | None) -> object:
        """The body of a GET; see `post`."""
        with self._exchange():
            async with asyncio.timeout(self._timeout_s):
                answer = await self._send(path, b"", key)
                return _parsed(b"".join([piece async for piece in answer]), answer.headers)

    async def post(
        self, path: str, body: bytes, key: str | None, sink: Receiver, *, may_stall: bool = False
    ) -> object | None:
        """POST JSON and read the response: whole or as server-sent events, as its body shows and whatever was asked.

        Returns None if it was a stream of events, which ``sink`` receives; else its body, parsed if it is JSON, or its
        text. As soon as the sink wants no more, the connection is closed, so that the server stops generating. Raises
        AttemptError if there is no response, or it broke off; events received before are then worthless. The reason may
        repeat the key, as servers do. ``may_stall`` gives a text that stops in the middle the whole time too.
        """
        with self._exchange():
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    latest = limit.when()
                    answer = await self._send(path, body, key)
                    try:
                        return await self._receive(answer, sink, limit, may_stall=may_stall)
                    finally:
                        answer.close()
            except AttemptError:
                raise
            except Exception as error:
                if sink.ended:
                    return None  # what went wrong after the end of the reply does not matter
                if limit.expired() and limit.when() != latest:
                    raise _StalledError from error
                raise

    async def _send(self, path: str, body: bytes, key: str | None) -> Answer:
        request = await self._requests.of(path, key, with_body=bool(body))
        answer = await self._connections.send(request, body)
        await self._require_success(answer, path)
        return answer

    async def _require_success(self, answer: Answer, url: str) -> None:
        if answer.is_success:
            return
        content = b"".join([piece async for piece in answer])
        answer.close()
        try:
            said = _parsed(content, answer.headers)
        except AttemptError:
            said = content.decode("utf-8", "replace")
        said = (said.get("error", said) if isinstance(said, Mapping) else said) or answer.reason
        if 400 <= answer.status < 500:
            self._require_scheme(str(said)[:_ENOUGH])
        fault = fault_of_status(answer.status, said, answer.headers, url)
        raise self._through_proxy(fault, is_page=isinstance(said, str))

    async def _receive(
        self, answer: Answer, sink: Receiver, limit: asyncio.Timeout, *, may_stall: bool
    ) -> object | None:
        content_type = answer.headers.get("content-type", "")
        declared, latest = content_type.startswith("text/event-stream"), limit.when() or math.inf
        pieces, begin, is_stream = aiter(answer), b"", None
        async for more in pieces:
            begin = (begin + more).lstrip(BLANK)
            if (is_stream := is_event_stream(begin, declared=declared)) is not None:
                break
        if not is_stream:
            body = _parsed(begin + b"".join([piece async for piece in pieces]), answer.headers)
            self._require_new(answer, body)
            return body
        decoder = EventDecoder(charset_of(content_type))
        is_first, last_at = True, 0.0
        piece: bytes | None = begin
        while piece is not None:
            self._silent_since = time.monotonic()
            events = decoder.feed(piece)
            if events and is_first:
                is_first = False
                self._require_new(answer, events[0])
            if not all(map(sink.take, events)):
                return None
            last_at = self._expect_more(sink, limit, latest, last_at, may_stall=may_stall)
            piece = await anext(pieces, None)
        all(map(sink.take, decoder.end()))
        return None

    def _expect_more(
        self, sink: Receiver, limit: asyncio.Timeout, latest: float, last_at: float, *, may_stall: bool
    ) -> float:
        """Set the limit, ``latest`` at most, to when the next piece must have come: soon after the end of a reply.

        Returns when the last piece of its text came; ``last_at`` is when the one before did, 0 for none.
        """
        now, until = asyncio.get_running_loop().time(), latest
        if sink.ended:
            until = now + (_AFTER_THE_END_S if sink.has_clearly_ended else _AFTER_A_DOUBTFUL_END_S)
        elif sink.has_text:
            if last_at:
                self._longest_gap_s = max(self._longest_gap_s, now - last_at)
            last_at = now
            if not may_stall:
                gap_s = _LONGEST_GAPS * self._longest_gap_s
                until = now + max(_LEAST_STALL_S, _OF_THE_TIMEOUT * self._timeout_s, gap_s)
        until = min(until, latest)
        if abs(until - (limit.when() or math.inf)) > (until - now) / 10:  # tokens come by the thousand a second
            limit.reschedule(until)
        return last_at

    def _require_new(self, answer: Answer, body: object) -> None:
        if self._repeats.has_come_before(answer, body):
            raise AttemptError("the reply to another question came once more", Fate.NOT_ITS_OWN)

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Track a request in flight, and raise whatever it fails with as `AttemptError`."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        self.in_flight += 1
        heard = False
        try:
            yield
            heard = True
        except AttemptError:
            heard = True
            raise
        except RecursionError as error:
            raise unexpected(described(error)) from None
        except _StalledError:
            raise AttemptError("the reply stopped in the middle, without an end", Fate.AGAIN) from None
        except aiohttp.ClientHttpProxyError as refusal:
            fault = fault_of_status(refusal.status, refusal.message, refusal.headers or {})
            raise self._through_proxy(fault, is_proxys=True) from None
        except Exception as error:  # whatever a server sends must end in a fault of this request
            self._require_scheme(" ".join(str(one)[:_ENOUGH] for one in chain(error)))
            remedy = LOOPBACK_REMEDY if is_loopback(self._base_url) else NETWORK_REMEDY
            fault = fault_of_connection(
                error, self._timeout_s, remedy, tls=self._endpoint.tls, silent=not self._has_replied
            )
            raise self._through_proxy(fault) from None
        finally:
            self.in_flight -= 1
            if heard:
                self._has_replied = True
                self._silent_since = time.monotonic() if self.in_flight else None

    def _require_scheme(self, said: str) -> None:
        """Raise what is wrong with the scheme of the base URL, if that is what an error says."""
        if wrong := wrong_scheme(self._base_url, "--base-url ", said, self._proxy):
            what, remedy = wrong
            raise AttemptError(what, Fate.REFUSED, remedy=remedy, heard=False) from None

    def _through_proxy(self, fault: AttemptError, *, is_page: bool = True, is_proxys: bool = False) -> AttemptError:
        """The fault, which names the proxy if it may be the proxy's.

        Args:
            fault: What went wrong.
            is_page: Whether there was no body that only the API itself would send.
            is_proxys: Whether it is certainly the proxy's.
        """
        needs_login = fault.status == _PROXY_LOGIN
        if self._proxy is None or not (is_proxys or needs_login or (is_page and fault.outage)):
            return fault
        variable = self._proxy.variable
        login = f"Put a valid user name and password into {variable} (http://USER:PASSWORD@HOST:PORT)"
        check = login if needs_login else f"Check that the proxy works, set {variable} to another one"
        return replace(
            fault,
            reason=f"{fault.reason}, through the proxy {self._proxy.address} (from {variable})",
            remedy=f"{check}, or skip it for this server: NO_PROXY={urlsplit(self._base_url).hostname}.",
            heard=False,
        )


def _parsed(content: bytes, headers: Any) -> object:
    """The body as JSON, whatever its header says; its text if it is not JSON.

    Raises AttemptError if it is cut-off JSON, and the header says that it is JSON.
    """
    content_type = headers.get("content-type", "")
    charset = charset_of(content_type)
    try:
        return from_json(content, charset)
    except (ValueError, RecursionError) as error:
        if content_type.partition(";")[0].strip().endswith("json") and content.lstrip(BLANK).startswith((b"{", b"[")):
            raise unexpected(described(error)) from None
    return content.decode(charset, "replace")
