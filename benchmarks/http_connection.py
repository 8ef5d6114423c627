"""HTTP/1.1 on one connection, as little of it as clients need: a framework would cost more than they do."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, cast

_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed", 411: b"Length Required"}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and where its reply goes.

    Attributes:
        method: "GET" or "POST".
        path: Without the query.
        body: As it was sent.
    """

    method: str
    path: str
    body: bytes
    connection: "Connection"
    started: bool = field(default=False, init=False)

    def reply(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        """Send a whole reply."""
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self.connection.send(head % (status, _REASONS[status], content_type, len(body)) + body)
        self.connection.done()

    def stream(self, events: bytes, *, last: bool = False) -> None:
        """Send a part of a streamed reply."""
        data = b"%x\r\n%b\r\n" % (len(events), events)
        if not self.started:
            self.started = True
            data = _STREAM_HEAD + data
        if last:
            data += b"0\r\n\r\n"
        self.connection.send(data)
        if last:
            self.connection.done()


class Application(Protocol):
    """What answers the requests."""

    def handle(self, exchange: Exchange) -> None:
        """A request has come; reply to it now or later."""

    def gone(self, exchange: Exchange) -> None:
        """Its client has closed the connection before the reply was sent."""


class Connection(asyncio.Protocol):
    """A client's connection; requests on it are answered one after the other."""

    __slots__ = ("_application", "_buffer", "_exchange", "_transport")

    def __init__(self, application: Application) -> None:
        self._application = application
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._application.gone(exchange)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._next()

    def send(self, data: bytes) -> None:
        """Send bytes; they go nowhere when the client has gone."""
        if self._transport is not None:
            self._transport.write(data)

    def done(self) -> None:
        """The reply has been sent as a whole."""
        self._exchange = None
        if self._buffer:
            # Not at once: the application is still at work on the reply that ends here.
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._exchange is not None or self._transport is None:
            return
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        request_line, _, headers = self._buffer[:head_end].partition(b"\r\n")
        headers = b"\r\n" + headers.lower() + b"\r\n"
        length = 0
        at = headers.find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(headers[at + 17 : headers.index(b"\r\n", at + 17)])
        elif b"\r\ntransfer-encoding:" in headers:
            self._refuse()
            return
        end = head_end + 4 + length
        if len(self._buffer) < end:
            return
        body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
        method, _, rest = request_line.decode("latin-1").partition(" ")
        self._exchange = Exchange(method, rest.partition(" ")[0].partition("?")[0], body, self)
        self._application.handle(self._exchange)

    def _refuse(self) -> None:
        self._buffer = b""
        Exchange("", "", b"", self).reply(411, b"")
        assert self._transport is not None
        self._transport.close()
