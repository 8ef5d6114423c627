"""One HTTP request to an OpenAI-compatible server: its parsed body, or why there is none."""

import asyncio
import contextlib
import importlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, Omit

from bundle.client.faults import AttemptError, Fate, fault_of_body, fault_of_connection, fault_of_status
from bundle.client.wording import chain, described

LONGEST_BODY = 16 * 1024 * 1024
"""Bytes. A reply of 32,768 tokens is about a tenth of a megabyte."""

_LONGEST_ERROR = 64 * 1024
_DECODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CONNECT_TIMEOUT_S = 15.0

_http: Any = importlib.import_module(
    next(base.__module__ for base in DefaultAioHttpClient.__mro__ if base.__name__ == "AsyncClient").partition(".")[0]
)
"""The HTTP package that the installed ``openai`` is built on: httpx, or httpx2 from version 3."""

# Not sent is what the package tells about this machine, and what it takes from the environment: this may be anybody's
# server, and every header costs time.
_HEADERS: Any = {
    # What is sent is a line or two, and compressed, a small body can become a large one.
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
_UNSENT_EITHER: Any = {"X-Stainless-Read-Timeout": Omit(), "X-Stainless-Retry-Count": Omit()}
"""These only stay away where each request says so."""


class Connection:
    """Sends requests with the ``openai`` package, each once and within its bounds.

    What the package's typed call spends most on is validating messages that are known to be right, and what is left,
    about a millisecond a request, on headers: so bodies come ready made, and no more headers are sent than are needed.

    Args:
        base_url: What paths are appended to.
        timeout_s: Most seconds a request may take, from the first byte sent to the last received.
        proxies: Whether the proxies of the environment are used; a server on loopback is never behind one.
    """

    def __init__(self, base_url: str, *, timeout_s: float, proxies: bool) -> None:
        self._timeout_s = timeout_s
        self._in_flight = 0
        self._silent_since: float | None = None
        # Retrying is left to the caller: it must know how often, keep the rate, and see through a broken body as well.
        # The package wants a key; which one is really sent, if any, is decided for every request.
        self._openai = AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s / 2)),
            max_retries=0,
            default_headers=_HEADERS,
            http_client=_BoundedHttpClient(proxies=proxies, tls=base_url.startswith("https:")),
        )

    async def close(self) -> None:
        """Close what is still open."""
        await self._openai.close()

    def silent_for(self) -> float:
        """For how many seconds requests have been made without a sign of any of their replies.

        Requests that are given up end no silence, and neither do the pauses before they are made again.
        """
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def get(self, path: str, key: str | None) -> object:
        """The body of a GET; see `post`."""
        with self._exchange():
            async with asyncio.timeout(self._timeout_s):
                answer = await self._openai.get(path, cast_to=_http.Response, options={"headers": _headers(key)})
                return _parsed(answer)

    async def post(self, path: str, body: bytes, key: str | None) -> object:
        """The body that a POST of JSON is answered with: parsed where it is JSON, and its text where it is not.

        Raises:
            AttemptError: There is none. Its reason may repeat the key, as servers do.
        """
        with self._exchange():
            async with asyncio.timeout(self._timeout_s):
                # The typed `chat.completions.create` validates every message and costs four times as much.
                answer = await self._openai.post(
                    path, content=body, cast_to=_http.Response, options={"headers": _headers(key)}
                )
                return _parsed(answer)

    async def post_streamed(
        self, path: str, body: bytes, key: str | None, take: Callable[[object], bool]
    ) -> object | None:
        """POST JSON, and take the server-sent events it is answered with one by one.

        Args:
            path: Where.
            body: What is sent.
            key: The bearer token.
            take: Is handed every event, and says whether it wants more. As soon as it does not, the connection is
                closed, so that the server stops generating.

        Returns:
            None; or the whole body, as `post` returns it, where a server does not answer with events.

        Raises:
            AttemptError: The reply broke off, or there is none; what was taken before is worth nothing.
        """
        with self._exchange():
            async with asyncio.timeout(self._timeout_s):
                stream = await self._openai.post(
                    path,
                    content=body,
                    cast_to=object,
                    stream=True,
                    stream_cls=AsyncStream[object],
                    options={"headers": _headers(key)},
                )
                async with stream:
                    if not stream.response.headers.get("content-type", "").startswith("text/event-stream"):
                        await stream.response.aread()
                        return _parsed(stream.response)
                    async for event in stream:
                        self._silent_since = time.monotonic()
                        if not take(event):
                            break
        return None

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Raise as `AttemptError` whatever a request can fail with; know that it is in flight."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        self._in_flight += 1
        heard = False
        try:
            yield
            heard = True
        except openai.APIStatusError as error:
            heard = True
            body_or_phrase = error.body or error.response.reason_phrase
            raise fault_of_status(error.status_code, body_or_phrase, error.response.headers) from None
        except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError, _TooLongError) as error:
            # The package passes on what it does not know, or calls it a failed connection; that differs by version.
            if any(isinstance(one, _TooLongError) for one in chain(error)):
                reason = f"the reply is longer than {LONGEST_BODY >> 20} MB, and no chat completion is"
                raise AttemptError(reason, Fate.UNANSWERED) from None
            raise fault_of_connection(error, self._timeout_s) from None
        except openai.APIError as error:
            if error.body:  # an error among the events
                raise fault_of_body({"error": error.body}) from None
            reason = f"the reply is not what the API promises: {described(error)}"
            raise AttemptError(reason, Fate.AGAIN) from None
        except (ValueError, RecursionError) as error:
            reason = f"the reply is not what the API promises: {described(error)}"
            raise AttemptError(reason, Fate.AGAIN) from None
        finally:
            self._in_flight -= 1
            if heard:
                self._silent_since = time.monotonic() if self._in_flight else None


def _headers(key: str | None) -> Any:
    return {"Authorization": Omit() if key is None else f"Bearer {key}", **_UNSENT_EITHER}


class _TooLongError(Exception):
    """A server sends more than any reply can be."""


class _BoundedHttpClient(DefaultAioHttpClient):
    """Reads at most ``LONGEST_BODY`` bytes of a reply, and of an error only as much as its message needs.

    It follows no redirect: one would turn the POST into a GET, or carry the question to another host.
    """

    def __init__(self, *, proxies: bool, tls: bool) -> None:
        super().__init__(
            trust_env=proxies,
            follow_redirects=False,
            # To read all certificates takes a tenth of a second; where nothing is encrypted, none is looked at.
            verify=tls or proxies,
        )
        self._addresses: dict[str, Any] = {}

    def build_request(
        self, method: str, url: Any, *, content: Any = None, headers: Any = None, timeout: Any = None, **others: Any
    ) -> Any:
        """A request as it is wanted. What the package would do besides, such as parsing its address every time, takes
        a tenth of all that a question costs."""
        if any(value for value in others.values()):
            return super().build_request(method, url, content=content, headers=headers, timeout=timeout, **others)
        parsed = self._addresses.get(url)
        if parsed is None:
            parsed = self._addresses[url] = _http.URL(url)
        return _http.Request(
            method, parsed, content=content, headers=headers, extensions={"timeout": _http.Timeout(timeout).as_dict()}
        )

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        response = await super().send(request, stream=True, **options)
        if "content-encoding" in response.headers:
            return await _decoded(response)
        response.stream = _Bounded(response.stream, is_error=not response.is_success)
        if not stream:
            await response.aread()
        return response


class _Bounded(_http.AsyncByteStream):  # type: ignore[misc]
    """A body of which no more is read than can be worth reading."""

    def __init__(self, stream: Any, *, is_error: bool) -> None:
        self._stream = stream
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _LONGEST_ERROR if self._is_error else LONGEST_BODY
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                if not self._is_error:
                    raise _TooLongError
                yield piece[:left]
                return
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _decoded(response: Any) -> Any:
    """A body that was compressed although nobody asked for that: its bounds are those of what comes out."""
    longest = LONGEST_BODY if response.is_success else _LONGEST_ERROR
    content = bytearray()
    try:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > longest:
                break
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


def _parsed(answer: Any) -> object:
    """The body as JSON, whatever its header says it is; its text where it is none.

    Raises:
        ValueError: It says that it is JSON, and is not.
    """
    is_json = answer.headers.get("content-type", "").partition(";")[0].endswith("json")
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        if is_json:
            raise
        return answer.text
