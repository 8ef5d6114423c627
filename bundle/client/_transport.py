"""One HTTP request to an OpenAI-compatible server: its parsed body, its events, or why there is neither."""

import asyncio
import codecs
import contextlib
import importlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import aiohttp
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

from bundle.client._events import BLANK, EventDecoder, is_event_stream
from bundle.client._faults import NETWORK_REMEDY, AttemptError, Fate, fault_of_status, unexpected
from bundle.system.text import one_line

LONGEST_BODY = 16 * 1024 * 1024
"""Bytes. A reply of 32,768 tokens is about a tenth of a megabyte."""

_LONGEST_ERROR = 64 * 1024
_DECODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CONNECT_TIMEOUT_S = 15.0
_AFTER_THE_END_S = 1.0
"""How long to wait for token counts and [DONE] after a reply's end."""

_http: Any = importlib.import_module(
    next(base.__module__ for base in DefaultAioHttpClient.__mro__ if base.__name__ == "AsyncClient").partition(".")[0]
)
"""The HTTP package that the installed ``openai`` is built on: httpx, or httpx2 from version 3."""

# Not sent is what the package reveals about this machine and what it reads from the environment: the server may be
# anyone's, and every header costs time.
_HEADERS: Any = {
    # Requests and replies are a few lines, and compressed, a small body can become a large one.
    "Accept-Encoding": "identity"
} | {
    name: Omit()
    for name in (
        "OpenAI-Organization",
        "OpenAI-Project",
        "X-Stainless-Arch",
        "X-Stainless-Async",
        "X-Stainless-Lang",
        "X-Stainless-OS",
        "X-Stainless-Package-Version",
        "X-Stainless-Runtime",
        "X-Stainless-Runtime-Version",
    )
}
_OMITTED_PER_REQUEST: Any = {"X-Stainless-Read-Timeout": Omit(), "X-Stainless-Retry-Count": Omit()}
"""These are only left out if each request says so."""


class EventSink(Protocol):
    """Receives the events of a streamed response."""

    @property
    def ended(self) -> bool:
        """Whether all that matters has been received."""

    def take(self, event: object) -> bool:
        """Take the next event, or `DONE`; return whether more are wanted."""


class Transport:
    """Sends requests with the ``openai`` package, each once and within bounds.

    The package's typed call spends most of its time on validating messages that are known to be valid, and most of the
    rest, about a millisecond a request, on headers: so bodies come serialised, with no more headers than needed.

    Args:
        base_url: What paths are appended to.
        timeout_s: Maximum duration of a request, from the first byte sent to the last one received.
        proxies: Whether to use the proxies set in the environment; a server on loopback is never behind one.
    """

    def __init__(self, base_url: str, *, timeout_s: float, proxies: bool) -> None:
        self._timeout_s = timeout_s
        self._in_flight = 0
        self._silent_since: float | None = None
        # Retrying is left to the caller, who counts attempts, keeps the rate and also retries after a broken body. The
        # package requires a key; which one is sent, if any, is decided for every request.
        self._openai = AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s / 2)),
            max_retries=0,
            default_headers=_HEADERS,
            http_client=_BoundedHttpClient(proxies=proxies, tls=base_url.startswith("https:")),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._openai.close()

    def silent_for(self) -> float:
        """For how many seconds requests have been in flight without a sign of any response.

        Neither a request that is given up nor the pause before it is retried ends the silence.
        """
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def get(self, path: str, key: str | None) -> object:
        """The body of a GET; see `post`."""
        with self._exchange():
            async with asyncio.timeout(self._timeout_s):
                response = await self._openai.get(path, cast_to=_http.Response, options={"headers": _headers(key)})
                return _parsed(await response.aread(), response.headers)

    async def post(self, path: str, body: bytes, key: str | None, sink: EventSink) -> object | None:
        """POST JSON and read the response: whole or as server-sent events, as its body shows and whatever was asked.

        Args:
            path: Where to.
            body: What to send.
            key: The bearer token.
            sink: Receives the events. As soon as it wants no more, the connection is closed, so that the server stops
                generating.

        Returns:
            None if the response was a stream of events; else its body, parsed if it is JSON, or its text.

        Raises:
            AttemptError: There is no response, or it broke off; events received before are then worthless. The reason
                may repeat the key, as servers do.
        """
        with self._exchange():
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    # The typed `chat.completions.create` validates every message and costs four times as much.
                    response = await self._openai.post(
                        path, content=body, cast_to=_http.Response, options={"headers": _headers(key)}
                    )
                    try:
                        return await self._receive(response, sink, limit)
                    finally:
                        await response.aclose()
            except AttemptError:
                raise
            except Exception:
                if not sink.ended:
                    raise
                return None  # what went wrong after the end of the reply does not matter

    async def _receive(self, response: Any, sink: EventSink, limit: asyncio.Timeout) -> object | None:
        declared = response.headers.get("content-type", "").startswith("text/event-stream")
        events: EventDecoder | None = None
        pieces: list[bytes] = []
        is_whole = False
        async for piece in response.stream:
            if is_whole:
                pieces.append(piece)
                continue
            if events is None:
                begin = b"".join((*pieces, piece)).lstrip(BLANK)
                is_stream = is_event_stream(begin, declared=declared)
                is_whole = is_stream is False
                if not is_stream:
                    pieces = [begin]
                    continue
                events, piece = EventDecoder(), begin
            self._silent_since = time.monotonic()
            if not _pass_on(events.feed(piece), sink, limit):
                return None
        if events is None:
            return _parsed(b"".join(pieces), response.headers)
        _pass_on(events.end(), sink, limit)
        return None

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Track a request in flight, and raise whatever it fails with as `AttemptError`."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        self._in_flight += 1
        heard = False
        try:
            yield
            heard = True
        except AttemptError:
            heard = True
            raise
        except openai.APIStatusError as error:
            heard = True
            body_or_phrase = error.body or error.response.reason_phrase
            raise fault_of_status(error.status_code, body_or_phrase, error.response.headers) from None
        except (ValueError, RecursionError) as error:
            raise unexpected(_described(error)) from None
        except Exception as error:
            # Which exceptions the package lets through and which it wraps differs by version. Whatever a server sends
            # must end in a fault of this request.
            if any(isinstance(one, _TooLongError) for one in _chain(error)):
                reason = f"the response is longer than {LONGEST_BODY >> 20} MB: not a chat completion"
                raise AttemptError(reason, Fate.UNANSWERED) from None
            raise _fault_of_connection(error, self._timeout_s) from None
        finally:
            self._in_flight -= 1
            if heard:
                self._silent_since = time.monotonic() if self._in_flight else None


def _pass_on(events: list[object], sink: EventSink, limit: asyncio.Timeout) -> bool:
    """Hand over events; return whether more are wanted."""
    had_ended = sink.ended
    if not all(sink.take(event) for event in events):
        return False
    if sink.ended and not had_ended:
        soon = asyncio.get_running_loop().time() + _AFTER_THE_END_S
        limit.reschedule(min(soon, limit.when() or soon))
    return True


def _headers(key: str | None) -> Any:
    return {"Authorization": Omit() if key is None else f"Bearer {key}", **_OMITTED_PER_REQUEST}


class _TooLongError(Exception):
    """A server sends more than any reply can be."""


class _BoundedHttpClient(DefaultAioHttpClient):
    """Reads at most ``LONGEST_BODY`` bytes of a response, and of an error only as much as its message needs.

    It follows no redirects: one would turn the POST into a GET, or carry the question to another host.
    """

    def __init__(self, *, proxies: bool, tls: bool) -> None:
        super().__init__(
            trust_env=proxies,
            follow_redirects=False,
            # Loading the certificates takes a tenth of a second, and is only needed for TLS.
            verify=tls or proxies,
        )
        self._addresses: dict[str, Any] = {}

    def build_request(
        self, method: str, url: Any, *, content: Any = None, headers: Any = None, timeout: Any = None, **others: Any
    ) -> Any:
        """A request as given. What the package would do besides, such as parsing its address every time, takes a tenth
        of all that a question costs."""
        if any(value for value in others.values()):
            return super().build_request(method, url, content=content, headers=headers, timeout=timeout, **others)
        parsed = self._addresses.get(url)
        if parsed is None:
            parsed = self._addresses[url] = _http.URL(url)
        return _http.Request(
            method, parsed, content=content, headers=headers, extensions={"timeout": _http.Timeout(timeout).as_dict()}
        )

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """A response whose body is still to be read, unless it is an error."""
        response = await super().send(request, stream=True, **options)
        if "content-encoding" in response.headers:
            return await _decoded(response)
        response.stream = _Bounded(response.stream, is_error=not response.is_success)
        if not response.is_success:
            await response.aread()
        return response


class _Bounded(_http.AsyncByteStream):  # type: ignore[misc]
    """A body of which no more is read than can matter; one of an error may break off."""

    def __init__(self, stream: Any, *, is_error: bool) -> None:
        self._stream = stream
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _LONGEST_ERROR if self._is_error else LONGEST_BODY
        pieces = aiter(self._stream)
        while left > 0:
            try:
                piece = await anext(pieces, None)
            except Exception:
                if self._is_error:
                    return
                raise
            if piece is None:
                return
            yield piece[:left] if self._is_error else piece
            left -= len(piece)
        if not self._is_error:
            raise _TooLongError

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _decoded(response: Any) -> Any:
    """A body that was compressed although the request did not allow it; the bounds are those of what comes out."""
    longest = LONGEST_BODY if response.is_success else _LONGEST_ERROR
    content = bytearray()
    try:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > longest:
                break
    except Exception:
        if response.is_success:
            raise
    finally:
        await response.aclose()
    if response.is_success and len(content) > longest:
        raise _TooLongError
    return type(response)(
        response.status_code,
        headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in _DECODED],
        content=bytes(content[:longest]),
        request=response.request,
        extensions=response.extensions,
    )


def _parsed(content: bytes, headers: Any) -> object:
    """The body as JSON, whatever its header says; its text if it is not JSON.

    Raises:
        ValueError: The header says that it is JSON, and it is not.
    """
    content_type, _, parameters = headers.get("content-type", "").partition(";")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        if content_type.endswith("json"):
            raise
    charset = parameters.partition("charset=")[2].strip("\"' ;") or "utf-8"
    with contextlib.suppress(LookupError, ValueError):
        codecs.lookup(charset)
        return content.decode(charset, "replace")
    return content.decode("utf-8", "replace")


def _fault_of_connection(error: BaseException, timeout_s: float) -> AttemptError:
    """The fault behind a connection that was not established, broke off or took too long."""
    errors = _chain(error)
    cause = errors[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AttemptError(
            f"the server's certificate is not valid: {one_line(cause.verify_message or str(cause), 200)}",
            Fate.REFUSED,
            remedy="Check the base URL. If your network has its own certificate, set SSL_CERT_FILE to its file.",
        )
    if any(isinstance(one, aiohttp.ConnectionTimeoutError) for one in errors):
        reason = "the server does not accept connections"
        return AttemptError(reason, Fate.AGAIN, remedy=NETWORK_REMEDY, outage=True, heard=False)
    if isinstance(cause, TimeoutError | asyncio.CancelledError):
        return AttemptError(f"no reply within {timeout_s:g} s", Fate.AGAIN)
    connected = not any(isinstance(one, aiohttp.ClientConnectorError) for one in errors)
    reason = f"connection failed: {_described(cause)}"
    return AttemptError(reason, Fate.AGAIN, remedy=NETWORK_REMEDY, outage=True, heard=connected)


def _described(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and what caused it, back to the first."""
    errors = [error]
    while (below := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(below)
    return errors
