"""A checkpoint, served on this machine: a fresh server after each death."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Coroutine, Sequence
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
from bundle.pipeline.targets import Server, Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, LocalModelRecord, Served
from bundle.serving.engine import Job, ServerSpec
from bundle.serving.engines import choose_engine
from bundle.serving.gpus import GpuMemory
from bundle.serving.health import wait_for_trouble
from bundle.serving.machine import Machine
from bundle.serving.supervisor import Server as ReadyServer
from bundle.serving.supervisor import Supervisor
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
        self.options = options
        self.arguments = arguments
        self._machine = machine
        self.running: set[Supervisor] = set()

    @property
    def model_file(self) -> ModelFile:
        require_trust(self.checkpoint, trusted=self.trusted)
        return self._named_model_file[1]

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return inspect_checkpoint(self._model_dir)

    @cached_property
    def _named_model_file(self) -> tuple[str, ModelFile]:
        if self.options.model_file is not None:
            return self.options.model_file, model_file(self.options.model_file)
        architecture = self.checkpoint.architecture
        return model_file_for(architecture) or ("none", ModelFile(description=architecture))

    @property
    def trusted(self) -> bool:
        chosen = self.options.trust_remote_code
        return self._named_model_file[1].trust_remote_code if chosen is None else chosen

    def token_counter(self) -> CountTokens | None:
        return token_counter(self.checkpoint)

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "LocalModel":
        checkpoint, options, (file_name, model) = self.checkpoint, self.options, self._named_model_file
        job = Job(
            checkpoint,
            self._machine,
            arguments=self.arguments,
            trust_remote_code=self.trusted,
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
        return LocalModel(self, spec, plan, screen, timing)

    def kill(self) -> None:
        for supervisor in self.running:
            supervisor.kill()


class LocalModel:
    """A checkpoint and how to start servers for it. See `Prepared`."""

    ours = True

    def __init__(self, local: Local, spec: ServerSpec, plan: Plan, screen: Screen, timing: Timing) -> None:
        self.label = local.checkpoint.path.name
        self.lives = 1 + local.options.max_restarts
        self.concurrency = spec.concurrency
        self._local = local
        self._spec = spec
        self._plan = plan
        self._screen = screen
        self._timing = timing

    async def check(self, started: asyncio.Event) -> None:
        """Prove the tokenizer, and import the client. Each takes a second or two, as does the server."""
        await started.wait()
        spec, trusted = self._spec, self._local.trusted
        _, proof = await asyncio.gather(
            in_thread(lambda: importlib.import_module("bundle.client._client")),
            prove_tokenizer(spec.tokenizer_directory, python=spec.interpreter, trust_remote_code=trusted),
        )
        if proof.warning is not None:
            self._screen.say(f"warning: {proof.warning}")

    def describe(self) -> Served:
        checkpoint, spec = self._local.checkpoint, self._spec
        return Served(
            LocalModelRecord(
                path=str(checkpoint.path),
                architecture=checkpoint.architecture,
                weight_bytes=checkpoint.weight_bytes,
                quantization=checkpoint.quantization,
                fingerprint=fingerprint(checkpoint),
            ),
            EngineRecord(
                name=spec.engine, version=spec.version, arguments=tuple(self._local.arguments), dtype=spec.dtype
            ),
        )

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        screen, options, running = self._screen, self._local.options, self._local.running
        memory = GpuMemory(self._spec.gpus)

        async def until_memory_is_free() -> None:
            if (held := await memory.wait_until_free()) is not None:
                screen.say(f"warning: {held}")

        supervisor = Supervisor(
            self._spec,
            log_path=log,
            start_timeout=options.start_timeout,
            say=screen.server,
            launched=started,
        )
        async with contextlib.AsyncExitStack() as cleanup:
            running.add(supervisor)
            cleanup.callback(running.discard, supervisor)
            cleanup.push_async_callback(until_memory_is_free)
            with self._timing.phase("start_s"):
                process = await cleanup.enter_async_context(supervisor)
            screen.say(f"server ready after {process.seconds_to_ready:.1f} s")
            noting = asyncio.create_task(memory.note(process.pid))
            cleanup.callback(noting.cancel)
            client = self._client(process)
            longer_replies = max(1.0, max(self._plan.max_out_len.values()) / _USUAL_REPLY)
            silence_s = options.hang_timeout or self._spec.longest_silence_s * longer_replies

            async def attend(work: Coroutine[Any, Any, None]) -> ServerError | None:
                watch = wait_for_trouble(process, client.silent_for, silence_s)
                trouble = await until_done_or_trouble(work, watch)
                if trouble is not None:
                    with self._timing.phase("stop_s"):
                        await supervisor.stop(at_once=True)  # it may hang, and has nothing left to say
                    return process.explained(trouble)
                return None

            yield Server(client, attend)
            screen.server("stopping")
            with self._timing.phase("stop_s"):
                await cleanup.aclose()

    def _client(self, server: ReadyServer) -> "ChatClient":
        from bundle.client import ChatClient  # imported late: slow, and the server should start first

        asked = self._plan.options
        return ChatClient(
            server.base_url,
            [server.api_key],
            server.model,
            temperature=self._plan.temperature,
            timeout_s=asked.request_timeout or _TIMEOUT_S,
            retries=_RETRIES if asked.retries is None else asked.retries,
            proxies=False,
            qps=asked.qps,
            answer_from_thinking=asked.answer_from_thinking,
            only_this_model=True,
            say=self._screen.say,
        )
