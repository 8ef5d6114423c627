"""The HTTP client that the ``openai`` package is given: what it sends, trusts and reads is bounded."""

import importlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openai import DefaultAioHttpClient

from bundle.errors import UsageError
from bundle.system.proxies import Proxy
from bundle.system.text import one_line

LONGEST_BODY = 16 * 1024 * 1024
"""Bytes. A reply of 32,768 tokens is about a tenth of a megabyte."""

_LONGEST_ERROR = 64 * 1024
_DECODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})

httpx: Any = importlib.import_module(
    next(base.__module__ for base in DefaultAioHttpClient.__mro__ if base.__name__ == "AsyncClient").partition(".")[0]
)
"""The HTTP package that the installed ``openai`` is built on: httpx, or httpx2 from version 3."""


class TooLongError(Exception):
    """A server sends more than any reply can be."""


class BoundedHttpClient(DefaultAioHttpClient):
    """Reads at most ``LONGEST_BODY`` bytes of a response, and of an error only as much as its message needs.

    It follows no redirects: one would turn the POST into a GET, or carry the question to another host.
    """

    def __init__(self, proxy: Proxy | None, *, tls: bool) -> None:
        super().__init__(
            trust_env=False,  # what is taken from it is read by us: proxies, certificates
            proxy=None if proxy is None else proxy.url,
            follow_redirects=False,
            # Loading the certificates takes a tenth of a second, and is only needed for TLS.
            verify=_certificates() if tls or (proxy is not None and proxy.url.startswith("https:")) else False,
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
            parsed = self._addresses[url] = httpx.URL(url)
        return httpx.Request(
            method,
            parsed,
            content=content,
            headers=headers,
            extensions={"timeout": httpx.Timeout(timeout).as_dict()},
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


def _certificates() -> ssl.SSLContext | bool:
    """The certificates that servers are checked against: those that the environment names, or True for the usual ones.

    Raises:
        UsageError: They cannot be read.
    """
    named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)] or ["REQUESTS_CA_BUNDLE"]
    places = {name: Path(os.environ[name]).expanduser() for name in named if os.environ.get(name)}
    if not places:
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, place in places.items():
        try:
            if place.is_dir():
                context.load_verify_locations(capath=place)
            else:
                context.load_verify_locations(cafile=place)
        except (OSError, ValueError) as error:
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
            raise UsageError(
                f"The certificates in {name}={one_line(str(place), 200)} cannot be read: {why}.",
                remedy=f"Set {name} to a PEM file or a directory of certificates, or unset it.",
            ) from None
    return context


class _Bounded(httpx.AsyncByteStream):  # type: ignore[misc]
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
            raise TooLongError

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
        raise TooLongError
    return type(response)(
        response.status_code,
        headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in _DECODED],
        content=bytes(content[:longest]),
        request=response.request,
        extensions=response.extensions,
    )
