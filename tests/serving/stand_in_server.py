"""A server that behaves as well or as badly as its options say, with the endpoints of an OpenAI-compatible one.

It uses the standard library alone, so that it starts in a fraction of a second. Its key is in the environment.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

KEY_VARIABLE = "STAND_IN_KEY"


def main() -> None:
    options = parse()
    if options.record_signals:
        record_signals(options.record_signals)
    if options.stubborn:
        ignore_requests_to_end()
    for kind in options.worker:
        start_worker(kind)
    print(options.print, flush=True)
    if options.exit is not None:
        sys.exit(options.exit)
    if options.hang:
        sleep_for_ever()
    wait_for(options.start_when)

    server = ThreadingHTTPServer((options.host, options.port), handler(options))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.pause()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tag", help="does nothing; a test finds its processes by it")
    parser.add_argument("--print", default="starting")
    parser.add_argument("--exit", type=int, help="end with this code after printing")
    parser.add_argument("--hang", action="store_true", help="never listen")
    parser.add_argument("--start-when", type=Path, help="listen once this file exists")
    parser.add_argument("--listed", type=json.loads, help="the models listed, as JSON; default: --model")
    parser.add_argument("--listed-when", type=Path, help="list no model until this file exists")
    parser.add_argument("--healthy-when", type=Path, help="answer 503 until this file exists")
    parser.add_argument("--unhealthy-because", help="what such an answer says")
    parser.add_argument("--generate", choices=["token", "500", "hang", "error"], default="token")
    parser.add_argument("--generates-when", type=Path, help="answer 500 until this file exists")
    parser.add_argument("--other-key", action="store_true", help="take another key than the one given")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGINT and SIGTERM")
    parser.add_argument("--record-signals", type=Path, help="write every request to end into this file, and ignore it")
    parser.add_argument(
        "--worker", action="append", default=[], choices=["child", "session", "daemon", "stubborn", "reviver"]
    )
    parser.add_argument("--journal", type=Path, help="write every request's path into this file")
    return parser.parse_args()


def handler(options: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    key = "other" if options.other_key else os.environ[KEY_VARIABLE]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.note()
            if self.path == "/health":
                because = {"message": options.unhealthy_because} if options.unhealthy_because else {}
                self.reply(200 if exists(options.healthy_when) else 503, because)
            elif not self.let_in():
                self.reply(401, {"error": "wrong key"})
            elif self.path == "/v1/models":
                names = options.listed if options.listed is not None else [options.model]
                self.reply(200, {"data": [{"id": name} for name in names if exists(options.listed_when)]})

        def do_POST(self) -> None:
            self.note()
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.let_in():
                self.reply(401, {"error": "wrong key"})
            elif options.generate == "hang":
                sleep_for_ever()
            elif options.generate == "500" or not exists(options.generates_when):
                self.reply(500, {"error": "no chat template"})
            else:
                reason = "error" if options.generate == "error" else "length"
                message = {"role": "assistant", "content": "A" * question["max_tokens"]}
                self.reply(200, {"choices": [{"message": message, "finish_reason": reason}]})

        def let_in(self) -> bool:
            return self.headers["Authorization"] == f"Bearer {key}"

        def reply(self, status: int, body: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def note(self) -> None:
            if options.journal:
                with options.journal.open("a") as file:
                    file.write(f"{self.path}\n")

        def log_request(self, code: object = "-", size: object = "-") -> None:
            return

    return Handler


def start_worker(kind: str) -> None:
    """Fork a process that stays, whatever becomes of us."""
    ready, up = os.pipe()
    if os.fork():
        os.close(up)
        os.read(ready, 1)  # The end of the pipe: it has become what it is to be.
        return
    if kind == "child":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if kind in ("session", "daemon"):
        os.setsid()
    if kind == "daemon" and os.fork():
        os._exit(0)
    if kind in ("daemon", "stubborn", "reviver"):
        ignore_requests_to_end()
    os.close(up)
    while kind == "reviver":  # Whenever its child is killed, it starts another.
        child = os.fork()
        if child == 0:
            sleep_for_ever()
        os.waitpid(child, 0)
    sleep_for_ever()


def ignore_requests_to_end() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)


def record_signals(file: Path) -> None:
    def record(signum: int, frame: object) -> None:
        with file.open("a") as out:
            out.write(f"{signal.Signals(signum).name}\n")

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, record)


def exists(file: Path | None) -> bool:
    return file is None or file.exists()


def wait_for(file: Path | None) -> None:
    while not exists(file):
        time.sleep(0.01)


def sleep_for_ever() -> NoReturn:
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
