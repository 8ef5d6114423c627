"""A checkpoint on one set of GPUs, ready to be served."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.checkpoints import Conversation, RenderedPrompt, TokenizerProof, prove_tokenizer
from bundle.client import Endpoint
from bundle.errors import ServerError
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.plan import Loaded, Requests
from bundle.pipeline.targets import Prepared, Server, Timing
from bundle.pipeline.template_proof import TemplateProof
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, Served
from bundle.serving.engine import ServerSpec
from bundle.serving.gpu_memory import GpuMemory
from bundle.serving.health import wait_for_trouble
from bundle.serving.server import Server as ReadyServer
from bundle.serving.supervisor import Supervisor
from bundle.system.background import in_thread, until_done_or_trouble

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import ChatClient

_USUAL_REPLY = 2048
"""Tokens of the longest reply that ``longest_silence_s`` is meant for."""


class LocalModel(Prepared):
    """A checkpoint on one set of GPUs: its servers, one after the other, and a client for them."""

    def __init__(
        self, given: LocalCheckpoint, spec: ServerSpec, requests: Requests, screen: Screen, timing: Timing
    ) -> None:
        self.label = given.checkpoint.name
        self.max_restarts = given.options.max_restarts
        self.concurrency = spec.concurrency
        self.gpus = spec.gpus
        self.spec = spec
        self._given = given
        self._requests = requests
        self._screen = screen
        self._timing = timing
        self._stop: Mapping[str, Any] = {}
        self._supervisor: Supervisor | None = None

    @property
    def extra_body(self) -> Mapping[str, Any]:
        return {**(self.spec.greedy if self._requests.settings.temperature == 0 else {}), **self._stop}

    async def check(self, started: asyncio.Event, loading: Awaitable[Loaded]) -> None:
        """Prove the tokenizer, and import the client. Each takes a second or two, as does the server."""
        await started.wait()
        importing = asyncio.ensure_future(in_thread(lambda: importlib.import_module("bundle.client._client")))
        self.template = await TemplateProof.of(
            (await loading).questions,
            self.max_restarts,
            self.prove,
            engine=self.spec.engine,
            option=self.spec.chosen_template,
            vocabulary=self.spec.model.directory,
        )
        await importing

    async def prove(self, conversations: Sequence[Conversation]) -> Sequence[RenderedPrompt]:
        """Prove the tokenizer; return what it makes of these prompts. Raises BundleError if it does not pass."""
        spec = self.spec
        proof = await prove_tokenizer(
            spec.model.directory,
            python=spec.interpreter,
            trust_remote_code=spec.model.own_code,
            conversations=conversations,
            uses_template=not self._requests.plain and spec.chosen_template is None,
            template_arguments=template_arguments(self._requests.settings.extra_body),
            template=spec.template,
        )
        if self._requests.plain:  # ends where the checkpoint's files say, as in OpenCompass's configs of base models
            return proof.conversations
        if proof.chosen_template is not None:
            files = "chat_template.jinja and tokenizer_config.json have different chat templates"
            self._screen.say(f"{files}: prompts are made with that of {proof.chosen_template}")
        self._stop = _stop_fields(spec, proof)
        if proof.unlisted_end is not None and spec.ends.isdisjoint(proof.stop_token_ids):
            if self._stop:
                self._screen.say(f"{proof.unlisted_end}: sending it with every request ({', '.join(self._stop)})")
            else:
                self._screen.say(f"warning: {proof.unlisted_end}: replies may not stop there")
            # So it is with Qwen2.5's base models, which have a chat template and were never trained on it.
            self._screen.say("if this is a base model, ask it as one: --prompt-shape plain")
        return proof.conversations

    def describe(self) -> Served:
        spec = self.spec
        gpus, given = tuple(gpu.name for gpu in spec.gpus), self._given.given_to(spec.engine)
        engine = EngineRecord(**given, version=spec.version, dtype=spec.dtype, backend=spec.backend, gpus=gpus)
        return Served(self._given.record(), engine)

    def kill(self) -> None:
        """Kill its server without asking."""
        if self._supervisor is not None:
            self._supervisor.kill()

    def close(self) -> None:
        if self.spec.gpu_locks is not None:
            self.spec.gpu_locks.release()
        for helper in self.helpers:
            helper.close()

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        screen = self._screen
        memory = GpuMemory(self.spec.gpus)

        async def until_memory_is_free() -> None:
            if (held := await memory.wait_until_free()) is not None:
                screen.say(f"warning: {held}")

        supervisor = self._supervisor = Supervisor(
            self.spec,
            log_path=log,
            start_timeout=self._given.options.start_timeout,
            say=screen.server,
            launched=started,
        )
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(until_memory_is_free)
            with self._timing.phase("start_s"):
                # A server that starts later would serve another model under this one's name.
                await in_thread(self._given.require_unchanged)
                process = await cleanup.enter_async_context(supervisor)
                await in_thread(self._given.require_unchanged)
            screen.say(f"server ready after {process.seconds_to_ready:.1f} s")
            noting = asyncio.create_task(memory.note(process.pid))
            cleanup.callback(noting.cancel)
            client = self._client(process)
            longer_replies = max(1.0, self._requests.longest_reply / _USUAL_REPLY)
            silence_s = self._given.options.hang_timeout or self.spec.longest_silence_s * longer_replies

            async def attend(work: Coroutine[Any, Any, None]) -> ServerError | None:
                watch = wait_for_trouble(process, client.silent_for, silence_s)
                trouble = await until_done_or_trouble(work, watch)
                if trouble is not None:
                    with self._timing.phase("stop_s"):
                        await supervisor.stop(at_once=True)  # it may hang, and has nothing left to say
                    return process.explained(trouble)
                return None

            yield Server(client, attend)
            screen.server("stopping the server")
            with self._timing.phase("stop_s"):
                await cleanup.aclose()

    def _client(self, server: ReadyServer) -> "ChatClient":
        from bundle.client import ChatClient  # imported late: slow, and the server should start first

        asked = self._requests.settings
        fields = _understood(asked.extra_body)
        settings = replace(asked, extra_body=fields, scoring=self.spec.scoring)
        endpoint = Endpoint(server.base_url, [server.api_key], ours=True)
        return ChatClient(endpoint, self.spec.served_name, settings, say=self._screen.say)


def _understood(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as every engine understands them: some remote APIs have ``enable_thinking`` as one of its own."""
    fields = dict(fields)
    if "enable_thinking" in fields:
        thinking = {"enable_thinking": fields.pop("enable_thinking")}
        fields["chat_template_kwargs"] = thinking | fields.get("chat_template_kwargs", {})
    return fields


def template_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of a request hand the chat template; engines hand it how much to think as well."""
    fields = _understood(fields)
    effort = {name: fields[name] for name in ("reasoning_effort",) if name in fields}
    return {**fields.get("chat_template_kwargs", {}), **effort}


def _stop_fields(spec: ServerSpec, proof: TokenizerProof) -> dict[str, list[str] | list[int]]:
    """What requests must hold so that replies stop where the chat template ends a turn; usually nothing."""
    if not proof.stop_token_ids or proof.end_of_turn is None or spec.stop_field is None:
        return {}
    return {spec.stop_field: [proof.end_of_turn] if spec.stop_field == "stop" else list(proof.stop_token_ids)}
