"""Ways in which a server fails to answer a request. Standard library only: the stand-in of lmdeploy imports it."""

import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

Fault = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]

_FOR_EVER = 10**9


def server_error(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    _send(handler, 500, b'{"object": "error", "message": "CUDA error: an illegal memory access", "code": 500}')


def too_many(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    _send(handler, 429, b'{"error": {"message": "too many requests"}}', ("Retry-After", "0.05"))


def reset(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """The connection is reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def cut(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """The connection ends in the middle of the reply."""
    if question.get("stream"):
        _begin(handler, "text/event-stream")
        _piece(handler, _event("A"))
    else:
        _begin(handler, "application/json")
        _piece(handler, b'{"choices": [{"message": {"content": "A')
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """The connection ends after the headers."""
    _begin(handler, "text/event-stream" if question.get("stream") else "application/json")
    handler.close_connection = True


def half_json(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """A whole body that is half a document."""
    if question.get("stream"):
        _send(handler, 200, b'data: {"choices": [{"delta": {"cont\n\n', ("Content-Type", "text/event-stream"))
    else:
        _send(handler, 200, b'{"choices": [{"message": {"cont')


def huge(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """100 MB."""
    _pour(handler, question, "A" * 2**16, pieces=1600, pause_s=0)


def endless(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """Tokens for ever, one every few milliseconds."""
    _pour(handler, question, "好", pieces=_FOR_EVER, pause_s=0.005)


def trickle(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """A byte now and then, for ever, and none of them a token."""
    _begin(handler, "text/event-stream" if question.get("stream") else "application/json")
    for _ in range(_FOR_EVER):
        _piece(handler, b" ")
        time.sleep(0.2)


def slow(handler: BaseHTTPRequestHandler, question: dict[str, Any]) -> None:
    """Nothing for a while, and then no more than an error."""
    time.sleep(random.uniform(0.2, 1.0))
    server_error(handler, question)


def _pour(handler: BaseHTTPRequestHandler, question: dict[str, Any], text: str, *, pieces: int, pause_s: float) -> None:
    for piece in _pieces(handler, question, text, pieces):
        _piece(handler, piece)
        time.sleep(pause_s)
    handler.close_connection = True


def _pieces(handler: BaseHTTPRequestHandler, question: dict[str, Any], text: str, count: int) -> Iterator[bytes]:
    if question.get("stream"):
        _begin(handler, "text/event-stream")
        piece = _event(text)
    else:
        _begin(handler, "application/json")
        yield b'{"choices": [{"message": {"content": "'
        piece = text.encode()
    for _ in range(count):
        yield piece


def _event(text: str) -> bytes:
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


def _begin(handler: BaseHTTPRequestHandler, content_type: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def _piece(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
