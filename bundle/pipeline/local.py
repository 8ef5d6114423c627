"""A checkpoint, served on this machine: a fresh server after each death."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.checkpoints import (
    Checkpoint,
    fingerprint,
    inspect_checkpoint,
    prove_tokenizer,
    require_trust,
    token_counter,
)
from bundle.config.model_files import ModelFile, model_file, model_file_for
from bundle.errors import ServerError
from bundle.pipeline.options import LocalOptions
from bundle.pipeline.plan import CountTokens, Plan
from bundle.pipeline.targets import Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, LocalModelRecord, Served
from bundle.serving.engine import Job, ServerSpec
from bundle.serving.engines import choose_engine
from bundle.serving.gpus import GpuMemory
from bundle.serving.health import wait_for_trouble
from bundle.serving.machine import Machine
from bundle.serving.supervisor import Server, Supervisor
from bundle.system.background import in_thread, until_done_or_trouble

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import ChatClient

_TIMEOUT_S, _RETRIES = 600.0, 3
_USUAL_REPLY = 2048
"""Tokens of the longest reply that ``longest_silence_s`` is meant for."""


class Local:
    """The target of ``bundle eval-local``.

    Args:
        model_dir: The checkpoint.
        options: How it is served.
        arguments: Passed on to the server's own command line.
        machine: What there is to serve with.
    """

    def __init__(self, model_dir: Path, options: LocalOptions, arguments: Sequence[str], machine: Machine) -> None:
        self._model_dir = model_dir
        self._options = options
        self._arguments = arguments
        self._machine = machine
        self._running: set[Supervisor] = set()

    @property
    def model_file(self) -> ModelFile:
        require_trust(self._checkpoint, trusted=self._trusted)
        return self._named_model_file[1]

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return inspect_checkpoint(self._model_dir)

    @cached_property
    def _named_model_file(self) -> tuple[str, ModelFile]:
        if self._options.model_file is not None:
            return self._options.model_file, model_file(self._options.model_file)
        architecture = self._checkpoint.architecture
        return model_file_for(architecture) or ("none", ModelFile(description=architecture))

    @property
    def _trusted(self) -> bool:
        chosen = self._options.trust_remote_code
        return self._named_model_file[1].trust_remote_code if chosen is None else chosen

    def token_counter(self) -> CountTokens | None:
        return token_counter(self._checkpoint)

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "LocalModel":
        checkpoint, options, (file_name, model) = self._checkpoint, self._options, self._named_model_file
        job = Job(
            checkpoint,
            self._machine,
            arguments=self._arguments,
            trust_remote_code=self._trusted,
            gpu=options.gpu,
            host=options.host,
        )
        engine = choose_engine(options.engine, model, job)
        screen.heading(plan.tasks, f"checkpoint {checkpoint.path}, engine {engine.name}", plan.sources())
        if checkpoint.remote_code:
            source = "--trust-remote-code" if options.trust_remote_code else f"model file {file_name}"
            names = ", ".join(checkpoint.remote_code_names)
            screen.say(f"allowing the checkpoint's own Python code ({source}): {names}")
        if checkpoint.weights_unchecked is not None:
            screen.say(f"weights not compared with config.json: {checkpoint.weights_unchecked}")
        with timing.phase("start_s"):
            spec = await in_thread(lambda: engine.prepare(screen.say))
        return LocalModel(
            label=checkpoint.path.name,
            lives=1 + options.max_restarts,
            concurrency=spec.concurrency,
            checkpoint=checkpoint,
            spec=spec,
            trusted=self._trusted,
            arguments=tuple(self._arguments),
            options=options,
            plan=plan,
            screen=screen,
            timing=timing,
            running=self._running,
        )

    def kill(self) -> None:
        for supervisor in self._running:
            supervisor.kill()


@dataclass(slots=True, kw_only=True)
class LocalModel:
    """A checkpoint with an engine that can serve it. See `Prepared`."""

    label: str
    ours: bool = True
    lives: int
    concurrency: int
    checkpoint: Checkpoint
    spec: ServerSpec
    trusted: bool
    arguments: tuple[str, ...]
    options: LocalOptions
    plan: Plan
    screen: Screen
    timing: Timing
    running: set[Supervisor]

    async def check(self, started: asyncio.Event) -> None:
        """Prove the tokenizer, and import the client. Each takes a second or two, as does the server."""
        await started.wait()
        importing = in_thread(lambda: importlib.import_module("bundle.client._client"))
        spec = self.spec
        proving = prove_tokenizer(spec.tokenizer_directory, python=spec.interpreter, trust_remote_code=self.trusted)
        _, proof = await asyncio.gather(importing, proving)
        if proof.warning is not None:
            self.screen.say(f"warning: {proof.warning}")

    def describe(self) -> Served:
        checkpoint, spec = self.checkpoint, self.spec
        return Served(
            LocalModelRecord(
                path=str(checkpoint.path),
                architecture=checkpoint.architecture,
                weight_bytes=checkpoint.weight_bytes,
                quantization=checkpoint.quantization,
                fingerprint=fingerprint(checkpoint),
            ),
            EngineRecord(name=spec.engine, version=spec.version, arguments=tuple(self.arguments)),
        )

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator["LocalServer"]:
        screen, spec, options = self.screen, self.spec, self.options
        memory = GpuMemory(spec.gpus)

        async def until_memory_is_free() -> None:
            if (held := await memory.wait_until_free()) is not None:
                screen.say(f"warning: {held}")

        supervisor = Supervisor(
            spec,
            log_path=log,
            start_timeout=options.start_timeout,
            say=screen.server,
            launched=started,
        )
        async with contextlib.AsyncExitStack() as cleanup:
            self.running.add(supervisor)
            cleanup.callback(self.running.discard, supervisor)
            cleanup.push_async_callback(until_memory_is_free)
            with self.timing.phase("start_s"):
                server = await cleanup.enter_async_context(supervisor)
            screen.say(f"server ready after {server.seconds_to_ready:.1f} s")
            noting = asyncio.create_task(memory.note(server.pid))
            cleanup.callback(noting.cancel)
            longer_replies = max(1.0, max(self.plan.max_out_len.values()) / _USUAL_REPLY)
            silence_s = options.hang_timeout or spec.longest_silence_s * longer_replies
            yield LocalServer(self._client(server), server, supervisor, silence_s, self.timing)
            screen.server("stopping")
            with self.timing.phase("stop_s"):
                await cleanup.aclose()

    def _client(self, server: Server) -> "ChatClient":
        from bundle.client import ChatClient  # imported late: slow, and the server should start first

        asked = self.plan.options
        return ChatClient(
            server.base_url,
            [server.api_key],
            server.model,
            temperature=self.plan.temperature,
            timeout_s=asked.request_timeout or _TIMEOUT_S,
            retries=_RETRIES if asked.retries is None else asked.retries,
            proxies=False,
            qps=asked.qps,
            answer_from_thinking=asked.answer_from_thinking,
            only_this_model=True,
            say=self.screen.say,
        )


@dataclass(slots=True)
class LocalServer:
    """A server of ours that is ready. See `bundle.pipeline.targets.Server`."""

    client: "ChatClient"
    server: Server
    supervisor: Supervisor
    silence_s: float
    timing: Timing

    async def attend(self, work: Coroutine[Any, Any, None]) -> ServerError | None:
        """Await ``work`` until the server dies or hangs; such a server is killed."""
        watch = wait_for_trouble(self.server, self.client.silent_for, self.silence_s)
        trouble = await until_done_or_trouble(work, watch)
        if trouble is not None:
            with self.timing.phase("stop_s"):
                await self.supervisor.stop(at_once=True)  # it may hang, and has nothing left to say
        return trouble
