"""A whole run, from top to bottom: check, serve, ask, score, write down, clean up."""

import asyncio
import contextlib
import difflib
import importlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bundle.checkpoints import (
    Checkpoint,
    fingerprint,
    inspect_checkpoint,
    prove_tokenizer,
    require_architecture,
    require_trust,
    token_counter,
)
from bundle.config.files import file_names
from bundle.config.model_files import ModelFile, RemoteSettings, keys_from_environment, model_file, model_file_for
from bundle.errors import ServerError, UsageError
from bundle.pipeline.base_pipeline import Pipeline
from bundle.pipeline.plan import Plan
from bundle.pipeline.requests import EvaluationRequest, LocalServer, RemoteServer
from bundle.reports.screen.console import Screen
from bundle.runs.run import Run
from bundle.serving.engines import Engine
from bundle.serving.gpu_memory import GpuMemory
from bundle.serving.machine import Machine
from bundle.serving.selection import choose_engine
from bundle.serving.supervisor import Server, Supervisor
from bundle.serving.watch import wait_for_trouble
from bundle.system.background import after, first_fault_only, in_thread, until_done_or_trouble

if TYPE_CHECKING:  # these take most of a second to import, and the server is to be on its way before
    from bundle.client.client import ChatClient
    from bundle.evaluation.evaluation import AskingOptions
    from bundle.reports.gates.conclusion import Conclusion

_LOCAL_TIMEOUT_S, _LOCAL_RETRIES = 600.0, 3
_USUAL_REPLY = 2048
"""Tokens of the longest reply that an engine's ``longest_silence_s`` is meant for."""


class LocalPipeline(Pipeline):
    """One run of ``bundle eval-local``."""

    def __init__(
        self,
        request: EvaluationRequest,
        server: LocalServer,
        machine: Machine,
        screen: Screen,
        conclusion: "Conclusion | None",
    ) -> None:
        super().__init__(request, screen, conclusion)
        self._server = server
        self._machine = machine
        self._supervisor: Supervisor | None = None

    def kill(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()

    async def _perform(self, closing: contextlib.ExitStack) -> None:
        wanted, screen = self._server, self._screen
        checkpoint = inspect_checkpoint(wanted.model_dir)
        file_name, model = _choose_model_file(wanted, checkpoint)
        trusted = model.trust_remote_code if wanted.trust_remote_code is None else wanted.trust_remote_code
        require_trust(checkpoint, trusted=trusted)
        plan = self._plan(model)
        engine = choose_engine(
            wanted.engine,
            checkpoint,
            model,
            wanted.engine_arguments,
            trust_remote_code=trusted,
            gpu=wanted.gpu,
            machine=self._machine,
        )
        require_architecture(checkpoint, engine.architectures, engine.name)
        screen.heading(plan.tasks, f"checkpoint {checkpoint.path}, engine {engine.name}", plan.sources())
        if checkpoint.remote_code:
            leave = "--trust-remote-code" if wanted.trust_remote_code else f"the model file {file_name}"
            screen.say(f"the checkpoint's own Python code may run ({leave}): {', '.join(checkpoint.remote_code_names)}")
        await self._serve_and_ask(checkpoint, model, engine, plan, trusted, closing)

    async def _serve_and_ask(
        self,
        checkpoint: Checkpoint,
        model: ModelFile,
        engine: Engine,
        plan: Plan,
        trusted: bool,
        closing: contextlib.ExitStack,
    ) -> None:
        screen = self._screen
        # Whichever of these fails first ends the others: nobody waits for a server whose questions are missing.
        async with first_fault_only(), asyncio.TaskGroup() as group:
            loading = group.create_task(self._load(plan, lambda: token_counter(checkpoint)))
            with self._phase("start_s"):
                await in_thread(lambda: engine.prepare(screen.say))
            run = self._open_run(f"{plan.label}-{checkpoint.path.name}", closing)
            launched = asyncio.Event()
            # The proof takes a second or two, and so does importing the client: all while the server loads, so that it
            # costs no time, and not before, so that the server has not to wait for it.
            proving = group.create_task(
                after(
                    launched,
                    lambda: prove_tokenizer(
                        engine.tokenizer_directory, python=engine.interpreter, trust_remote_code=trusted
                    ),
                )
            )
            module = "bundle.client.client"
            group.create_task(after(launched, lambda: in_thread(lambda: importlib.import_module(module))))

            async def ready() -> None:
                """What must be there, besides a server, before the first question is asked."""
                with self._phase("prove_s"):
                    if not (loading.done() and proving.done()):
                        screen.server("ready; waiting for the data and the proof of the tokenizer")
                    loaded = await loading
                    await proving
                served = await in_thread(lambda: _describe_served(checkpoint, engine, self._server))
                self._begin(run, plan, loaded, served, self._options_for(engine))

            trouble = await self._one_life(engine, run, plan, launched, ready)
            restarts = 0
            while trouble is not None and self._goes_on_after(trouble, restarts):
                restarts += 1
                trouble = await self._one_life(engine, run, plan, launched, None)

    def _options_for(self, engine: Engine) -> "AskingOptions":
        """Not to be called before the server is on its way: this imports the client, in part."""
        return self._options(self._request.concurrency or engine.concurrency, adaptive=False)

    async def _one_life(
        self,
        engine: Engine,
        run: Run,
        plan: Plan,
        launched: asyncio.Event,
        ready: Callable[[], Awaitable[None]] | None,
    ) -> ServerError | None:
        """Start a server, ask it all it can answer, and stop it; return what went wrong with it meanwhile."""
        wanted, screen = self._server, self._screen
        supervisor = self._supervisor = Supervisor(
            engine,
            log_path=run.server_log,
            host=wanted.host,
            start_timeout=wanted.start_timeout_s,
            say=screen.server,
            launched=launched,
        )
        memory = GpuMemory(engine.gpus)

        async def until_memory_is_free() -> None:
            if (held := await memory.wait_until_free()) is not None:
                screen.say(f"warning: {held}")

        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(until_memory_is_free)
            try:
                with self._phase("start_s"):
                    server = await cleanup.enter_async_context(supervisor)
            except ServerError as error:
                if ready is not None:
                    raise
                return error  # what it died of may take a while to pass, as memory does to come back
            screen.say(f"server ready after {server.seconds_to_ready:.1f} s")
            if ready is not None:
                await ready()
            noting = asyncio.create_task(memory.note(server.pid))
            cleanup.callback(noting.cancel)
            client = self._client(server, plan)
            longer_replies = max(1.0, max(plan.max_out_len.values()) / _USUAL_REPLY)
            silence_s = wanted.hang_timeout_s or engine.longest_silence_s * longer_replies
            trouble = await until_done_or_trouble(
                self._ask(plan, client, self._options_for(engine), ours=True),
                wait_for_trouble(server, client.silent_for, silence_s),
            )
            screen.server("stopping")
            stopping = time.perf_counter()
            if trouble is not None:
                await supervisor.stop(at_once=True)  # it may hang, and nobody waits for anything from it
        self._timing["stop_s"] = self._timing.get("stop_s", 0.0) + time.perf_counter() - stopping
        return trouble

    def _goes_on_after(self, trouble: ServerError, restarts: int) -> bool:
        """Say what went wrong with the server and what becomes of its questions; whether there is more to be asked.

        Raises:
            ServerError: There is, and it has been started again often enough.
        """
        evaluation, screen, most = self._evaluation, self._screen, self._server.max_restarts
        assert evaluation is not None
        for question in evaluation.server_lost(last_life=restarts >= most):
            screen.say(f"set aside, for the server dies of it: {question.subject} {question.id}")
        left = len(evaluation.unanswered)
        if left and restarts >= most:
            raise trouble
        screen.say(trouble.message)
        if left:
            evaluation.server["restarts"] = restarts + 1
            screen.say(f"starting it again ({restarts + 1} of {most}): {left} questions are left")
        if suspected := evaluation.suspected:
            screen.say(f"{suspected} of them were in flight; they are asked last and one at a time")
        return left > 0

    def _client(self, server: Server, plan: Plan) -> "ChatClient":
        from bundle.client.client import ChatClient

        request = self._request
        return ChatClient(
            server.base_url,
            [server.api_key],
            server.model,
            temperature=plan.temperature,
            timeout_s=request.request_timeout_s or _LOCAL_TIMEOUT_S,
            retries=_LOCAL_RETRIES if request.retries is None else request.retries,
            proxies=False,
            qps=request.qps,
            answer_from_thinking=request.answer_from_thinking,
            only_this_model=True,
            say=self._screen.say,
        )


class RemotePipeline(Pipeline):
    """One run of ``bundle eval-remote``."""

    def __init__(
        self, request: EvaluationRequest, server: RemoteServer, screen: Screen, conclusion: "Conclusion | None"
    ) -> None:
        super().__init__(request, screen, conclusion)
        self._server = server

    def kill(self) -> None:
        return  # the server is somebody else's

    async def _perform(self, closing: contextlib.ExitStack) -> None:
        from bundle.client.client import ChatClient
        from bundle.client.endpoint import insecure, is_loopback, normalise_base_url, only_model

        request, wanted, screen = self._request, self._server, self._screen
        model = _remote_model_file(wanted)
        remote = model.remote
        base_url = normalise_base_url(_required_base_url(wanted, remote))
        variable = wanted.api_key_env or remote.api_key_env
        keys = keys_from_environment(variable) if variable is not None else []
        if keys and insecure(base_url):
            screen.say(f"warning: the API key is sent to {base_url} without encryption")
        plan = self._plan(model)
        async with first_fault_only(), asyncio.TaskGroup() as group:
            loading = group.create_task(self._load(plan, lambda: None))
            name = remote.model or await only_model(
                base_url, keys[0] if keys else None, proxies=not is_loopback(base_url)
            )
            screen.heading(plan.tasks, f"model {name} at {base_url}", plan.sources())
            loaded = await loading
            run = self._open_run(f"{plan.label}-{name}", closing)
            qps, timeout_s = request.qps or remote.qps, request.request_timeout_s or remote.timeout_s
            retries = remote.retries if request.retries is None else request.retries
            client = ChatClient(
                base_url,
                keys,
                name,
                temperature=plan.temperature,
                timeout_s=timeout_s,
                retries=retries,
                proxies=not is_loopback(base_url),
                qps=qps,
                answer_from_thinking=request.answer_from_thinking,
                say=screen.say,
            )
            served = {
                "model": {"name": name, "base_url": base_url},
                "requests": {"qps": qps, "retries": retries, "timeout_s": timeout_s},
            }
            options = self._options(request.concurrency or remote.concurrency, adaptive=True)
            self._begin(run, plan, loaded, served, options)
            await self._ask(plan, client, options)


def _remote_model_file(wanted: RemoteServer) -> ModelFile:
    """The model file that is named, or one for the served name that is."""
    if wanted.model is None:
        return ModelFile(description="the only model the server lists")
    if wanted.model in file_names("models") or wanted.model.endswith(".toml"):
        return model_file(wanted.model)
    return ModelFile(description=wanted.model, remote=RemoteSettings(model=wanted.model))


def _required_base_url(wanted: RemoteServer, remote: RemoteSettings) -> str:
    base_url = wanted.base_url or remote.base_url
    if base_url is None:
        near = difflib.get_close_matches(wanted.model or "", file_names("models"), n=1)
        raise UsageError(
            f"Where {remote.model or 'the model'} is served is not known.",
            remedy=f"Did you mean the model file {near[0]}?"
            if near
            else "Give --base-url, or name a model file that has one; `bundle models` lists them.",
        )
    return base_url


def _choose_model_file(wanted: LocalServer, checkpoint: Checkpoint) -> tuple[str, ModelFile]:
    if wanted.model_file is not None:
        return wanted.model_file, model_file(wanted.model_file)
    return model_file_for(checkpoint.architecture) or ("none", ModelFile(description=checkpoint.architecture))


def _describe_served(checkpoint: Checkpoint, engine: Engine, wanted: LocalServer) -> dict[str, Any]:
    return {
        "model": {
            "path": str(checkpoint.path),
            "architecture": checkpoint.architecture,
            "weight_bytes": checkpoint.weight_bytes,
            "quantization": checkpoint.quantization,
            "fingerprint": fingerprint(checkpoint),
        },
        "engine": {"name": engine.name, "version": engine.version, "arguments": list(wanted.engine_arguments)},
    }
