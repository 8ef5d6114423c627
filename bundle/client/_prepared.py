"""Requests as the ``openai`` package makes them, to be sent with every body that is asked.

The package's typed call spends most of its time on validating messages that are known to be valid, and its plain one on
headers and options that are the same every time. So it makes one request to an address with a key, and sends none.
"""

import asyncio
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import openai
from openai import AsyncOpenAI, Omit

from bundle.client._settings import Endpoint
from bundle.errors import UsageError
from bundle.system.text import one_line

httpx: Any = importlib.import_module(
    next(
        base.__module__ for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient"
    ).partition(".")[0]
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
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class Prepared(NamedTuple):
    """All of a request but its body."""

    method: str
    url: str
    headers: Mapping[str, str]


class _SendsNothing(openai.DefaultAsyncHttpxClient):
    async def send(self, request: Any, **_options: Any) -> Any:
        """An answer that has the request."""
        return httpx.Response(200, request=request)


class PreparedRequests:
    """Requests to one server. Raises UsageError if its base URL cannot be used."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._headers = _OMITTED_PER_REQUEST | {name.title(): value for name, value in endpoint.headers.items()}
        self._made: dict[tuple[str, str | None], Prepared] = {}
        self._making = asyncio.Lock()
        try:
            # The package requires a key; which one is sent, if any, is decided for every request.
            self._openai = AsyncOpenAI(
                base_url=endpoint.base_url.partition("?")[0],
                api_key="none",
                default_headers=_HEADERS,
                http_client=_SendsNothing(trust_env=False, verify=False),
            )
        except httpx.InvalidURL as error:
            why = one_line(str(error), 200)
            raise UsageError(f"The base URL is not valid: {why}.", remedy="Check it, character by character.") from None

    async def of(self, url: str, key: str | None, *, with_body: bool) -> Prepared:
        """The request to an address with a key: a POST if it is sent ``with_body``, else a GET."""
        if (made := self._made.get((url, key))) is not None:
            return made
        async with self._making:  # a local server is sent hundreds at once
            if (url, key) not in self._made:
                login = Omit() if key is None else f"Bearer {key}"
                options: Any = {"headers": {"Authorization": login, **self._headers}}
                if with_body:
                    answer = await self._openai.post(url, content=b"{}", cast_to=httpx.Response, options=options)
                else:
                    answer = await self._openai.get(url, cast_to=httpx.Response, options=options)
                request = answer.request
                kept = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_BODY}
                self._made[url, key] = Prepared(request.method, str(request.url), kept)
        return self._made[url, key]

    async def close(self) -> None:
        """End the use of the package."""
        await self._openai.close()
