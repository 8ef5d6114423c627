"""An OpenAI-compatible server that computes nothing, and takes as long as an engine with given parameters would.

    python -m benchmarks.simulated_server small_model --port 8000

It prints its base URL and serves until it is ended. Besides the API and ``/health`` there are ``/metrics``, under the
names of lmdeploy's (the prefix cache's are vLLM's, lmdeploy has none), and ``/simulation``, which says what it has done
and what that cost.
"""

import argparse
import asyncio
import json
import math
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import openai_format
from benchmarks.batching import Engine, Request, State
from benchmarks.http_connection import Connection, Exchange
from benchmarks.openai_format import ChatRequest
from benchmarks.parameters import Parameters, read_parameters
from benchmarks.prefix_cache import PrefixCache, block_keys
from benchmarks.replies import letter_for, reply_with

MODEL_NAME = "simulated"


@dataclass(slots=True, eq=False)
class _Generation:
    """A reply on its way."""

    exchange: Exchange
    chat: ChatRequest
    number: int
    tokens: Sequence[str]
    decided_after: int
    finish_reason: str
    sent: int = 0


class SimulatedServer:
    """Answers requests when the engine would have.

    Args:
        parameters: What it is like.
        loop: Where it runs.
    """

    def __init__(self, parameters: Parameters, loop: asyncio.AbstractEventLoop) -> None:
        self._parameters = parameters
        self._loop = loop
        caching = parameters.prefix_caching
        self._cache = PrefixCache(caching.blocks, caching.tokens_per_block)
        self._characters_per_block = round(caching.tokens_per_block * parameters.characters_per_token)
        self._engine = Engine(parameters.batching, self._cache)
        self._generations: dict[Request, _Generation] = {}
        self._requests: dict[Exchange, Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._connections = 0
        self._streamed = 0
        self._answered: set[int] = set()
        self._first_request: tuple[float, float] | None = None
        self._last_reply = 0.0
        self._cpu_at_last_reply = 0.0

    def connect(self) -> Connection:
        """Take a new connection."""
        self._connections += 1
        return Connection(self)

    def handle(self, exchange: Exchange) -> None:
        """A request has come; reply to it now or later."""
        if exchange.path == "/v1/chat/completions" and exchange.method == "POST":
            self._chat(exchange)
        elif exchange.method != "GET":
            exchange.reply(405, openai_format.error("only GET here"))
        elif exchange.path == "/health":
            exchange.reply(200, b"")
        elif exchange.path == "/v1/models":
            exchange.reply(200, openai_format.models(MODEL_NAME))
        elif exchange.path == "/metrics":
            exchange.reply(200, self._metrics().encode(), b"text/plain; version=0.0.4; charset=utf-8")
        elif exchange.path == "/simulation":
            exchange.reply(200, json.dumps(self.counters()).encode())
        else:
            exchange.reply(404, openai_format.error(f"no {exchange.path} here"))

    def gone(self, exchange: Exchange) -> None:
        """A client has closed the connection: what was generated for it is generated no longer."""
        self._pump()
        request = self._requests.pop(exchange, None)
        if request is not None:
            del self._generations[request]
            self._engine.cancel(request, time.monotonic())
            self._ended()
            self._pump()

    def counters(self) -> dict[str, Any]:
        """What it has done since it was started, and what that cost it. Times are in seconds; ``_at`` is since 1970.

        ``answered`` is the number of distinct prompts whose reply was sent at least up to its letter: a client may
        disconnect then, or retry. ``computed_at_best`` is the number of prompt tokens an unlimited prefix cache would
        have left to compute.
        """
        self._pump()
        first_at, first_cpu_s = self._first_request or (0.0, 0.0)
        return {
            **asdict(self._engine.counters),
            "answered": len(self._answered),
            "streamed": self._streamed,
            "connections": self._connections,
            "prefix_hits": self._cache.hits,
            "prefix_misses": self._cache.misses,
            "prefix_distinct": self._cache.distinct,
            "computed_at_best": self._engine.counters.prompt_tokens
            - (self._cache.hits + self._cache.misses - self._cache.distinct) * self._cache.tokens_per_block,
            "running": self._engine.running,
            "waiting": self._engine.waiting,
            "first_request_at": first_at,
            "last_reply_at": self._last_reply,
            "request_phase_s": max(0.0, self._last_reply - first_at),
            "cpu_s": max(0.0, self._cpu_at_last_reply - first_cpu_s),
        }

    def _chat(self, exchange: Exchange) -> None:
        if self._first_request is None:
            self._first_request = time.time(), time.process_time()
        try:
            chat = openai_format.parse_chat(exchange.body)
        except ValueError as error:
            exchange.reply(400, openai_format.error(str(error)))
            return
        self._pump()
        reply = reply_with(letter_for(chat.question), self._parameters.replying)
        tokens, steps, finish_reason = reply.tokens, reply.steps, "stop"
        if chat.max_tokens is not None and chat.max_tokens < steps:
            tokens, steps, finish_reason = tokens[: chat.max_tokens], chat.max_tokens, "length"
        request = Request(
            prompt_tokens=max(1, round(len(chat.prompt) / self._parameters.characters_per_token)),
            blocks=block_keys(chat.prompt, self._characters_per_block)
            if self._parameters.prefix_caching.blocks
            else (),
            steps=steps,
        )
        self._streamed += chat.stream
        self._requests[exchange] = request
        number = self._engine.counters.requests
        self._generations[request] = _Generation(exchange, chat, number, tokens, reply.decided_after, finish_reason)
        self._engine.submit(request, time.monotonic())
        self._pump()

    def _pump(self) -> None:
        """Bring the engine up to now, send what it has generated, and wake up again when it has more."""
        while (at := self._engine.next_event()) is not None and at <= (now := time.monotonic()):
            for request in self._engine.advance(now):
                generation = self._generations.get(request)
                if generation is not None and (generation.chat.stream or request.state is State.FINISHED):
                    self._send(request, generation)
        if at is None or at >= self._timer_at > time.monotonic():
            return
        if self._timer is not None:
            self._timer.cancel()
        # uvloop's timers count milliseconds; one that rings too early would only ring again.
        wait_s = math.ceil(1000 * (at - time.monotonic())) / 1000
        self._timer, self._timer_at = self._loop.call_later(max(0.0, wait_s), self._ring), at

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._pump()

    def _send(self, request: Request, generation: _Generation) -> None:
        number, model = generation.number, generation.chat.model
        ends = request.state is State.FINISHED
        usage = request.prompt_tokens, request.cached_tokens, request.steps
        if ends:
            del self._generations[request], self._requests[generation.exchange]
            self._answered.add(hash(generation.chat.prompt))
            self._ended()
        if not generation.chat.stream:
            text = "".join(generation.tokens)
            body = openai_format.completion(number, model, text, generation.finish_reason, *usage)
            generation.exchange.reply(200, body)
            return
        events = b""
        # As vLLM and lmdeploy do: what has been generated since the last event is in the next one.
        if text := "".join(generation.tokens[generation.sent : request.generated]):
            chunk = openai_format.next_chunk if generation.sent else openai_format.first_chunk
            events = chunk(number, model, text)
            generation.sent = min(request.generated, len(generation.tokens))
        if generation.sent >= generation.decided_after:
            self._answered.add(hash(generation.chat.prompt))
        if ends:
            wanted = generation.chat.include_usage
            events += openai_format.last_chunks(number, model, generation.finish_reason, *usage, usage=wanted)
        generation.exchange.stream(events, last=ends)

    def _ended(self) -> None:
        self._last_reply, self._cpu_at_last_reply = time.time(), time.process_time()

    def _metrics(self) -> str:
        self._pump()
        done, engine = self._engine.counters, self._engine
        labels = f'{{model_name="{MODEL_NAME}",engine="0"}}'
        used = len(self._cache) / max(1, self._parameters.prefix_caching.blocks)
        values = (
            ("lmdeploy:num_requests_succeeded", "gauge", done.finished),
            ("lmdeploy:num_requests_failed", "gauge", done.cancelled),
            ("lmdeploy:num_requests_running", "gauge", engine.running),
            ("lmdeploy:num_requests_waiting", "gauge", engine.waiting),
            ("lmdeploy:gpu_cache_usage_perc", "gauge", used),
            ("lmdeploy:prompt_tokens_total", "counter", done.prompt_tokens),
            ("lmdeploy:generation_tokens_total", "counter", done.tokens_generated),
            ("vllm:prefix_cache_queries_total", "counter", done.prompt_tokens),
            ("vllm:prefix_cache_hits_total", "counter", done.cached_tokens),
        )
        return "".join(f"# TYPE {name} {kind}\n{name}{labels} {value}\n" for name, kind, value in values)


async def serve(parameters: Parameters, port: int, *, until_stdin_closes: bool) -> None:
    """Serve on loopback until SIGTERM or SIGINT; print the base URL when ready."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = SimulatedServer(parameters, loop)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening = await loop.create_server(server.connect, sock=listener)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    await stop.wait()
    listening.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="A server that takes as long as an inference engine would.")
    parser.add_argument("parameters", help="a file as in benchmarks/*.toml, or one's name")
    parser.add_argument("--port", type=int, default=0, help="by default a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when whoever started it ends")
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        new_loop = None
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(
            serve(
                read_parameters(arguments.parameters),
                arguments.port,
                until_stdin_closes=arguments.until_stdin_closes,
            )
        )


if __name__ == "__main__":
    main()
