"""The connections to a server: what is sent over them, trusted and read is bounded."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from bundle.client._faults import AttemptError, Fate
from bundle.client._prepared import Prepared, httpx
from bundle.system.network import Proxy, named_certificates

_LONGEST_BODY = 16 * 1024 * 1024
"""Bytes. A reply of 32,768 tokens is about a tenth of a megabyte."""

_LONGEST_ERROR = 64 * 1024
_LONGEST_HEADER = 64 * 1024
_MOST_HEADERS = 1024
_MOST_CONNECTIONS = 1000
_IDLE_S = 4.0
"""How long an idle connection is kept: uvicorn closes it after 5 s, and a request sent just then is lost."""
_KEPT_ALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""When a connection over which nothing comes is asked whether it is still there, at most 90 seconds until it is lost.

That also keeps it known to gateways on the way, which forget those that are silent while a model thinks."""

_MORE_HEADERS: Any = (  # aiohttp bounds their number, at 128, from 3.14 on
    {"max_headers": _MOST_HEADERS} if "max_headers" in (aiohttp.ClientSession.__init__.__kwdefaults__ or {}) else {}
)


class Answer:
    """A response whose body is still to be read, once; of an error's, only as much as its message needs.

    The names of its headers have no case. Its connection may bring others as well.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        self.connection = response.came_over
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = response.headers
        self.is_success = 200 <= self.status < 300

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come. Raises AttemptError if it is longer than any reply."""
        left = _LONGEST_BODY if self.is_success else _LONGEST_ERROR
        try:
            async for piece in self._response.content.iter_any():
                yield piece[:left]
                left -= len(piece)
                if left < 0:
                    break
        except Exception:
            if self.is_success:
                raise  # the body of an error may break off, in whatever way
        if left < 0 and self.is_success:
            reason = f"the response is longer than {_LONGEST_BODY >> 20} MB: not a chat completion"
            raise AttemptError(reason, Fate.UNANSWERED)

    def close(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self._response.close()


class _StrayDataError(Exception):
    """On an idle connection something has come that no request asked for."""


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        # A response that was sent twice, say: the second would be taken for that to the next request.
        if conn.protocol is None or conn.protocol.should_close:
            raise _StrayDataError
        _keep_alive(conn.transport.get_extra_info("socket"))
        response: Any = await super().send(conn)
        response.came_over = conn.protocol
        return response  # type: ignore[no-any-return]


def _keep_alive(connection: Any) -> None:
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return
    with contextlib.suppress(OSError):  # a system that knows no such times keeps its own
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEPT_ALIVE_S.items():
            if (option := getattr(socket, name, None)) is not None:  # Linux and macOS name them differently
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Connections:
    """What requests are sent over; ``tls`` if the server has a certificate to be checked.

    No redirect is followed: one would turn the POST into a GET, or carry the question to another host. Raises
    UsageError if the certificates that the environment names cannot be read.
    """

    def __init__(self, proxy: Proxy | None, *, tls: bool, connect_timeout_s: float) -> None:
        self._proxy = None if proxy is None else proxy.address
        self._proxy_login = None if proxy is None else _login(proxy.url)
        # Loading the certificates takes a tenth of a second, and is only needed for TLS.
        self._certificates: ssl.SSLContext | None = None
        if tls or (self._proxy or "").startswith("https:"):
            self._certificates = named_certificates() or httpx.create_ssl_context(trust_env=False)
        self._time_limits = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Prepared, body: bytes) -> Answer:
        """Send a request."""
        if self._session is None:  # a session belongs to the event loop
            connector = aiohttp.TCPConnector(
                limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_S, ssl=self._certificates or False
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                request_class=_Request,
                timeout=self._time_limits,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=_LONGEST_HEADER,
                max_field_size=_LONGEST_HEADER,
                **_MORE_HEADERS,
            )
        while True:
            try:
                response = await self._session.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=body or None,
                    allow_redirects=False,
                    proxy=self._proxy,
                    proxy_auth=self._proxy_login,
                )
            except _StrayDataError:
                continue  # that connection is closed
            return Answer(response)

    async def close(self) -> None:
        """Close all of them."""
        if self._session is not None:
            await self._session.close()


def _login(proxy: str) -> aiohttp.BasicAuth | None:
    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    return aiohttp.BasicAuth(unquote(parts.username), unquote(parts.password or ""), "utf-8")
