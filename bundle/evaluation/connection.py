"""One HTTP request to an OpenAI-compatible server: its parsed body, or why there is none."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

from bundle.evaluation.faults import AttemptError, Fate, fault_of_connection, fault_of_status
from bundle.evaluation.wording import chain, described, is_html

LONGEST_BODY = 16 * 1024 * 1024
"""Bytes. A reply of 32,768 tokens is about a tenth of a megabyte."""

_LONGEST_ERROR = 64 * 1024
_DECODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CONNECT_TIMEOUT_S = 15.0


class Connection:
    """Sends requests with the ``openai`` package, each once and within its bounds.

    Args:
        base_url: What paths are appended to.
        timeout_s: Most seconds a request may take, from the first byte sent to the last received.
        proxies: Whether the proxies of the environment are used; a server on loopback is never behind one.
    """

    def __init__(self, base_url: str, *, timeout_s: float, proxies: bool) -> None:
        self._timeout_s = timeout_s
        # Retrying is left to the caller: it must know how often, keep the rate, and see through a broken body as well.
        # The package wants a key; which one is really sent, if any, is decided for every request.
        self._openai = AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s / 2)),
            max_retries=0,
            http_client=_BoundedHttpClient(proxies=proxies),
        )

    async def close(self) -> None:
        """Close what is still open."""
        await self._openai.close()

    async def get(self, path: str, key: str | None) -> object:
        """The body of a GET; see `post`."""
        return await self._request("GET", path, None, key)

    async def post(self, path: str, body: Mapping[str, Any], key: str | None) -> object:
        """The body that a POST is answered with: parsed where it is JSON, and its text where it is not.

        Raises:
            AttemptError: There is none. Its reason may repeat the key, as servers do.
        """
        return await self._request("POST", path, body, key)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None, key: str | None) -> object:
        headers = {
            "Authorization": Omit() if key is None else f"Bearer {key}",
            # The package takes these from the environment, and this may be anybody's server.
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                if method == "GET":
                    answer = await self._openai.get(path, cast_to=object, options={"headers": headers})
                else:
                    # The typed `chat.completions.create` validates every message and costs four times as much.
                    answer = await self._openai.post(path, body=body, cast_to=object, options={"headers": headers})
        except openai.APIStatusError as error:
            body_or_phrase = error.body or error.response.reason_phrase
            raise fault_of_status(error.status_code, body_or_phrase, error.response.headers) from None
        except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError, _TooLongError) as error:
            # The package passes on what it does not know, or calls it a failed connection; that differs by version.
            if any(isinstance(one, _TooLongError) for one in chain(error)):
                reason = f"the reply is longer than {LONGEST_BODY >> 20} MB, and no chat completion is"
                raise AttemptError(reason, Fate.UNANSWERED) from None
            raise fault_of_connection(error, self._timeout_s) from None
        except UnicodeEncodeError as error:
            raise AttemptError(f"the question cannot be sent as UTF-8: {error.reason}", Fate.UNANSWERED) from None
        except (openai.APIError, ValueError, RecursionError) as error:
            reason = f"the reply is not what the API promises: {described(error)}"
            raise AttemptError(reason, Fate.AGAIN) from None
        return _parsed(answer)


class _TooLongError(Exception):
    """A server sends more than any reply can be."""


class _BoundedHttpClient(DefaultAioHttpClient):
    """Reads at most ``LONGEST_BODY`` bytes of a reply, and of an error only as much as its message needs.

    It follows no redirect: one would turn the POST into a GET, or carry the question to another host.
    """

    def __init__(self, *, proxies: bool) -> None:
        # What is sent is a line or two, and compressed, a small body can become a large one.
        super().__init__(trust_env=proxies, follow_redirects=False, headers={"Accept-Encoding": "identity"})

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        response = await super().send(request, stream=True, **options)
        if stream and response.is_success:
            return response
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


def _parsed(answer: object) -> object:
    """An answer whose header does not say that it is JSON may be JSON all the same."""
    if not isinstance(answer, str) or is_html(answer):
        return answer
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return answer
