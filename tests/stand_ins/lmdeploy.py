"""Stands in for the ``lmdeploy`` executable: its options, its endpoints and its ways to fail, without a GPU.

``LMDEPLOY_STAND_IN`` says how it behaves. It uses the standard library alone, so that it starts in a moment.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BEHAVIOUR = os.environ.get("LMDEPLOY_STAND_IN", "good")
RECORD = os.environ.get("LMDEPLOY_STAND_IN_RECORD")

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.28 GiB."


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("lmdeploy 0.18.0")
        return
    options = parse()
    if RECORD:
        record(options)
    if BEHAVIOUR == "out of memory":
        sys.exit(f"Traceback (most recent call last):\n{OUT_OF_MEMORY}")
    print("Loading weights from safetensors:  50%|#####     | 1/2", flush=True)
    if BEHAVIOUR == "never ready":
        threading.Event().wait()
    if BEHAVIOUR == "slow start":
        time.sleep(1.5)
    ThreadingHTTPServer.request_queue_size = 512
    server = ThreadingHTTPServer((options.server_name, options.server_port), Handler)
    server.daemon_threads = True
    Handler.model = options.model_name
    Handler.keys = ["another"] if BEHAVIOUR == "wrong key" else options.api_keys
    print("HINT:    Please open http://… in a browser for detailed api usage!!!", flush=True)
    server.serve_forever()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lmdeploy")
    serve = parser.add_subparsers(required=True).add_parser("serve")
    api_server = serve.add_subparsers(required=True).add_parser("api_server")
    api_server.add_argument("model_path")
    api_server.add_argument("--server-name", default="0.0.0.0")
    api_server.add_argument("--server-port", type=int, default=23333)
    api_server.add_argument("--model-name")
    api_server.add_argument("--api-keys", nargs="*")
    api_server.add_argument("--backend", choices=["pytorch", "turbomind"], default="turbomind")
    api_server.add_argument("--log-level", default="WARNING")
    api_server.add_argument("--generation-config", default="auto")
    api_server.add_argument("--session-len", type=int)
    api_server.add_argument("--enable-prefix-caching", action="store_true")
    api_server.add_argument("--enable-abort-handling", action="store_true")
    api_server.add_argument("--trust-remote-code", action="store_true")
    api_server.add_argument("--max-batch-size", type=int)
    api_server.add_argument("--cudagraph-capture-batch-sizes", type=int, nargs="+")
    api_server.add_argument("--disable-metrics", action="store_true")
    api_server.add_argument("--eager-mode", action="store_true")
    return parser.parse_args()


def record(options: argparse.Namespace) -> None:
    """Write down what we were started with, and what others can read of it."""
    command_line = Path("/proc/self/cmdline")
    seen = {
        "options": vars(options),
        "command_line": command_line.read_text().split("\0") if command_line.exists() else [],
        "environment": dict(os.environ),
    }
    assert RECORD is not None
    Path(RECORD).write_text(json.dumps(seen))


class Handler(BaseHTTPRequestHandler):
    """The endpoints of ``lmdeploy serve api_server`` that matter here."""

    protocol_version = "HTTP/1.1"
    model = ""
    keys: list[str] | None = None
    asked = 0

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {"status": "healthy"})
        elif self.path == "/v1/models" and self.let_in():
            self.reply(200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.let_in():
            return
        Handler.asked += 1
        if BEHAVIOUR == "crash midway" and Handler.asked > 20:
            print("terminate called after throwing an instance of 'std::runtime_error'", flush=True)
            os._exit(1)
        if BEHAVIOUR == "silent" and Handler.asked > 20:
            threading.Event().wait()
        if BEHAVIOUR == "fails some" and Handler.asked % 10 == 0:
            self.reply(400, {"object": "error", "message": "no", "code": 400})
            return
        # The answer depends on the question alone, as with a greedy model.
        letter = "ABCD"[len(question["messages"][-1]["content"]) % 4]
        message = {"role": "assistant", "content": letter}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302}
        self.reply(200, {"object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage})

    def let_in(self) -> bool:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.keys is not None and key not in self.keys:
            self.reply(401, {"error": "Unauthorized"})
            return False
        return True

    def reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        return


if __name__ == "__main__":
    main()
