"""An OpenAI-compatible API on loopback, in a thread of the test's own process, for programs that are processes."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


def completion(text: str) -> tuple[int, dict[str, Any]]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 1}}


def letter(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A letter that depends on the question alone, as with a greedy model."""
    return completion("ABCD"[len(body["messages"][-1]["content"]) % 4])


@dataclass
class RemoteApi:
    """A running API.

    Attributes:
        url: Up to and including ``/v1``.
        bodies: Request bodies in the order they came.
        keys: Authorization headers likewise.
    """

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def remote_api(reply: Reply = letter, models: Sequence[str] = ("the-model",)) -> Iterator[RemoteApi]:
    """Serve ``reply`` until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(200, {"object": "list", "data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.keys.append(self.headers.get("Authorization"))
            api.bodies.append(body)
            self.send(*reply(body))

        def send(self, status: int, content: dict[str, Any]) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_request(self, code: object = "-", size: object = "-") -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            return  # a client that was killed is what some tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        api = RemoteApi(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
