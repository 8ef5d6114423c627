"""Stands in for the ``lmdeploy`` executable: its options, its endpoints and its ways to fail, without a GPU.

``LMDEPLOY_STAND_IN`` says how it behaves: in all of its lives, or, separated by semicolons, in one after the other; the
last holds for all that follow. ``LMDEPLOY_STAND_IN_ON_0`` says it for those on GPU 0 alone. What it does while it
serves begins after ``MIDWAY`` questions. A poison is a question that holds one of ``LMDEPLOY_STAND_IN_POISON``. What
happens to it is written to ``LMDEPLOY_STAND_IN_JOURNAL``.

It uses the standard library alone, so that it starts in a moment.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.stand_ins import faulty_replies as faults
from tests.stand_ins.journal import Journal, read_journal

BEHAVIOURS = os.environ.get(
    f"LMDEPLOY_STAND_IN_ON_{os.environ.get('CUDA_VISIBLE_DEVICES')}", os.environ.get("LMDEPLOY_STAND_IN", "good")
).split("; ")
JOURNAL = os.environ.get("LMDEPLOY_STAND_IN_JOURNAL")
RECORD = os.environ.get("LMDEPLOY_STAND_IN_RECORD")

POISONS = [poison for poison in os.environ.get("LMDEPLOY_STAND_IN_POISON", "").split("; ") if poison]
GPU_PROCESSES = os.environ.get("LMDEPLOY_STAND_IN_GPU_PROCESSES")
MIDWAY = 20

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.28 GiB."


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("lmdeploy 0.18.0")
        return
    options = parse()
    if RECORD:
        record(options)
    journal = Handler.journal = Journal(JOURNAL)
    behaviour = Handler.behaviour = BEHAVIOURS[min(journal.life, len(BEHAVIOURS)) - 1]
    earlier = read_journal(Path(JOURNAL)).all_of("worker") if JOURNAL else []
    journal.note(
        pid=os.getpid(),
        port=options.server_port,
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        workers_alive=[pid for pid in earlier if alive(pid)],
    )
    if GPU_PROCESSES:
        Path(GPU_PROCESSES).write_text(
            json.dumps([["GPU-00000000-0000-0000-0000-000000000000", os.getpid(), "x", 700]])
        )
    if behaviour == "out of memory":
        sys.exit(f"Traceback (most recent call last):\n{OUT_OF_MEMORY}")
    print("Loading weights from safetensors:  50%|#####     | 1/2", flush=True)
    if behaviour == "never ready":
        threading.Event().wait()
    if behaviour == "slow start":
        time.sleep(1.5)
    if behaviour == "stubborn":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: journal.note(signal=signal.Signals(number).name))
    if behaviour.startswith("leaves a worker"):
        start_worker(journal)
    server = Server((options.server_name, options.server_port), Handler)
    Handler.model = options.model_name
    Handler.model_path = options.model_path
    Handler.keys = ["another"] if behaviour == "wrong key" else options.api_keys
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
    api_server.add_argument("--chat-template")
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


def alive(pid: int) -> bool:
    """Whether there is such a process, and more of it than its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_worker(journal: Journal) -> None:
    """Leave a process that has no parent, a session of its own, and ears for nothing."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    journal.note(worker=os.getpid())
    threading.Event().wait()


COUNTING = threading.Lock()


def count_tokens(model_path: str, question: dict[str, Any]) -> int:
    """The number of tokens that the chat template of our made checkpoints and their tokenizer give."""
    from tokenizers import Tokenizer  # takes a while, and few servers are asked

    text = question.get("prompt")
    if text is None:
        turns = (f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in question["messages"])
        text = f"<s>{''.join(turns)}<|im_start|>assistant\n"
    with COUNTING:
        tokenizer = Tokenizer.from_file(f"{model_path}/tokenizer.json")
        return len(tokenizer.encode(text, add_special_tokens="prompt" in question).ids)


def text_of(question: dict[str, Any]) -> str:
    """A plain prompt, or a conversation's last message."""
    return str(question["prompt"] if "prompt" in question else question["messages"][-1]["content"])


class Server(ThreadingHTTPServer):
    """Takes many connections at once, and does not mind when one ends."""

    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        return


class Handler(BaseHTTPRequestHandler):
    """The endpoints of ``lmdeploy serve api_server`` that matter here."""

    protocol_version = "HTTP/1.1"
    journal: Journal
    behaviour: str
    model = ""
    model_path = ""
    keys: list[str] | None = None
    numbers = itertools.count(1)
    sick = False
    met: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {"status": "healthy"})
        elif self.path == "/v1/models" and self.let_in():
            self.reply(200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif self.path != "/v1/models":
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.let_in():
            return
        text = text_of(question)
        fields = {name: value for name, value in question.items() if name not in ("messages", "prompt")}
        if question["max_tokens"] == 1 and not Handler.sick:  # somebody wants to know whether it is ready, and for what
            self.journal.note(counted=fields)
            if self.behaviour == "dies of a token" and any(poison in text for poison in POISONS):
                self.swallow()
            self.answer(question)
            return
        number = next(Handler.numbers)
        self.journal.note(asked=text, fields=fields)
        if number > MIDWAY:
            self.behave()
        if any(poison in text for poison in POISONS):
            self.swallow()
        if Handler.sick:
            faults.server_error(self, question)
        elif self.behaviour == "fails some" and number % 10 == 0:
            self.reply(400, {"object": "error", "message": "no", "code": 400})
        elif (fault := self.fault_of(text)) is not None:
            self.journal.note(fault=fault.__name__, of=text)
            fault(self, question)
        else:
            self.answer(question)

    def behave(self) -> None:
        """Do what this server does midway."""
        match self.behaviour:
            case "crash midway":
                print("terminate called after throwing an instance of 'std::runtime_error'", flush=True)
                os._exit(1)
            case "out of memory midway":
                print(f"Traceback (most recent call last):\n{OUT_OF_MEMORY}", flush=True)
                os._exit(1)
            case "exits" | "leaves a worker and exits":
                os._exit(3)
            case "silent" | "stubborn" | "leaves a worker":
                threading.Event().wait()
            case "fails everything":
                Handler.sick = True
            case "another model":
                Handler.model = "another"
            case "takes its time":
                time.sleep(0.3)
            case "leaves a worker and waits for a word":
                while not Path(f"{JOURNAL}-go-on").exists():
                    time.sleep(0.02)

    def swallow(self) -> None:
        """Meet the poison."""
        if self.behaviour == "sickens of poison":
            Handler.sick = True
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def fault_of(self, text: str) -> faults.Fault | None:
        """What goes wrong with this question."""
        number = zlib.crc32(text.encode())
        if self.behaviour == "passing faults" and text not in Handler.met and number % 4 == 0:
            Handler.met.add(text)
            return PASSING[number // 4 % len(PASSING)]
        if self.behaviour == "fails at random" and random.random() < 0.05:
            return random.choice((*PASSING, faults.slow))
        if self.behaviour == "lasting faults" and number % 13 == 0:
            return LASTING[number // 13 % len(LASTING)]
        return None

    def answer(self, question: dict[str, Any]) -> None:
        # The answer depends on the question alone, as with a greedy model.
        letter = "ABCD"[len(text_of(question)) % 4]
        usage = {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302}
        if question["max_tokens"] == 1:
            usage["prompt_tokens"] = count_tokens(self.model_path, question)
            if self.behaviour == "another template":
                usage["prompt_tokens"] += 330
            if self.behaviour == "no special token":
                usage["prompt_tokens"] -= 1
            if self.behaviour == "counts nothing":
                usage = {}
        plain = "prompt" in question
        if question.get("stream"):
            first = {"text": letter} if plain else {"delta": {"content": letter}}
            last: dict[str, Any] = {"text": ""} if plain else {"delta": {}}
            self.stream([first, {**last, "finish_reason": "stop"}], usage)
            return
        said = {"text": letter} if plain else {"message": {"role": "assistant", "content": letter}}
        choice = {"index": 0, **said, "finish_reason": "stop"}
        self.reply(200, {"object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage})

    def stream(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> None:
        events = [{"choices": [{"index": 0, **choice}]} for choice in choices] + [{"choices": [], "usage": usage}]
        chunks = [{"object": "chat.completion.chunk", "model": self.model, **event} for event in events]
        content = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.send(200, content.encode(), "text/event-stream")

    def let_in(self) -> bool:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.keys is not None and key not in self.keys:
            self.reply(401, {"error": "Unauthorized"})
            return False
        return True

    def reply(self, status: int, body: object) -> None:
        self.send(status, json.dumps(body).encode(), "application/json")

    def send(self, status: int, content: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        return


PASSING = (faults.reset, faults.cut, faults.hang_up, faults.half_json, faults.server_error, faults.too_many)
LASTING = (faults.huge, faults.endless, faults.trickle)


if __name__ == "__main__":
    main()
