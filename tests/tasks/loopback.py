"""A real HTTP server on loopback that remembers what it was asked."""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Answer = tuple[int, Mapping[str, str], bytes]


class Loopback:
    """Answers GET and HEAD with what `answer` returns: status, headers, body.

    Attributes:
        url: Its address.
        requests: "METHOD /path" of everything it was asked, in order.
        silent: While set, requests are accepted and never answered.
    """

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.requests: list[str] = []
        self.silent = False
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                if outer.silent:
                    outer._released.wait()
                    self.close_connection = True
                    return
                status, headers, body = answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)
                # A length that is not the body's is a connection cut off midway.
                self.close_connection = self.close_connection or "Content-Length" in headers

            do_HEAD = do_GET  # noqa: N815 - http.server calls it so

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep the tests' output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
