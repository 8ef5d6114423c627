"""A checkpoint, served on this machine: a fresh server after each death."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bundle.checkpoints import (
    Checkpoint,
    Conversation,
    RenderedPrompt,
    TokenCounter,
    TokenizerProof,
    fingerprint,
    has_chat_template,
    inspect_checkpoint,
    is_internlm2,
    prove_tokenizer,
    require_chat_template,
    require_trust,
    require_values,
    token_counter,
)
from bundle.config.model_files import EngineSettings, ModelFile, model_file, model_file_for
from bundle.errors import ServerError, UsageError
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.options import ALL, LocalOptions
from bundle.pipeline.plan import Loaded, Plan, Requests
from bundle.pipeline.servers import PrefixedScreen
from bundle.pipeline.targets import Prepared, Server, Target, Timing
from bundle.pipeline.template_proof import TemplateProof, choose_prompts
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, LocalModelRecord, Served
from bundle.serving.conversion import CONVERTED, cache_directory
from bundle.serving.engine import Engine, Job, ServerSpec, is_given
from bundle.serving.engines import ENGINES, choose_engine
from bundle.serving.gpus import GpuMemory, groups_of
from bundle.serving.health import wait_for_trouble
from bundle.serving.machine import Machine
from bundle.serving.missing_gpus import why_no_gpu
from bundle.serving.server import Server as ReadyServer
from bundle.serving.supervisor import Supervisor
from bundle.system.background import in_thread, until_done_or_trouble
from bundle.system.files import user_path
from bundle.system.guarded import without_keys
from bundle.tasks.catalog import Question

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import ChatClient

_TIMEOUT_S, _RETRIES = 600.0, 3
_USUAL_REPLY = 2048
"""Tokens of the longest reply that ``longest_silence_s`` is meant for."""


class Local(Target):
    """The target of ``bundle eval-local``.

    Args:
        arguments: Passed on to the server's own command line.
        dry_run: Whether nothing will be served, so that an adapter need not be merged.
    """

    def __init__(
        self,
        model_dir: Path,
        options: LocalOptions,
        arguments: Sequence[str],
        machine: Machine,
        *,
        dry_run: bool = False,
    ) -> None:
        self.model_dir = model_dir
        self.options = options
        self.arguments = arguments
        self._machine = machine
        self.running: set[Supervisor] = set()
        self._is_dry = dry_run
        self._merged: tuple[Checkpoint, object] | None = None

    async def open(self, screen: Screen) -> None:
        if (adapter := self._adapter) is not None:
            self._merged = await in_thread(lambda: self._merge(adapter, screen))
        # Not on the loop's own thread, which cannot wait for the process that reads .bin files.
        if (note := await in_thread(lambda: require_values(self.checkpoint.weights))) is not None:
            screen.say(f"warning: {note}")

    @property
    def _adapter(self) -> Path | None:
        """The adapter's directory. Raises UsageError if there are several, which are models of their own."""
        if len(self.options.adapter) > 1:
            raise UsageError("A run has one --adapter.", remedy="Name one, or `bundle eval-local` them all.")
        return self.options.adapter[0] if self.options.adapter else None

    def _merge(self, directory: Path, screen: Screen) -> tuple[Checkpoint, object]:
        # imported late: most runs need none of it
        from bundle.checkpoints.adapter import inspect_adapter
        from bundle.checkpoints.cache import hold
        from bundle.checkpoints.merge import link_unmerged, merge_adapter

        base = inspect_checkpoint(self.model_dir)
        adapter = inspect_adapter(directory, base)
        for note in adapter.notes:
            screen.say(note)
        kept: object
        if self._is_dry:
            kept = TemporaryDirectory(prefix="bundle-")
            merged = Path(kept.name)
            link_unmerged(base, adapter, merged)
        else:
            merged = merge_adapter(base, adapter, cache_directory() / CONVERTED, say=screen.say)
            kept = hold(merged)
        return replace(inspect_checkpoint(merged), name=adapter.name), kept

    @property
    def model_file(self) -> ModelFile:
        if not is_internlm2(self.checkpoint.config):  # every engine serves those without their code
            require_trust(self.checkpoint, trusted=self.trusted)
        file = self._named_model_file[1]
        return file if self._has_template else file.model_copy(update={"prompt_shape": "plain"})

    @cached_property
    def _has_template(self) -> bool:
        """Whether there is a chat template to ask with: the checkpoint's, or one that the user chose for the server."""
        return self._chosen_template or has_chat_template(self.checkpoint)

    @property
    def _chosen_template(self) -> bool:
        given = [argument.replace("_", "-") for argument in self.arguments]  # vLLM takes both
        return is_given("--chat-template", given)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return inspect_checkpoint(self.model_dir) if self._merged is None else self._merged[0]

    @cached_property
    def given(self) -> tuple[Path, Path | None]:
        """The directories that the user gave: the checkpoint's, and an adapter's."""
        adapter = self._adapter
        if adapter is None:
            return self.checkpoint.path, None
        return user_path(self.model_dir).resolve(), user_path(adapter).resolve()

    @cached_property
    def _named_model_file(self) -> tuple[str, ModelFile]:
        if self.options.model_file is not None:
            return self.options.model_file, model_file(self.options.model_file)
        return model_file_for(self.checkpoint.architecture)

    @cached_property
    def trusted(self) -> bool:
        chosen, file = self.options.trust_remote_code, self._named_model_file[1]
        if chosen is not None:
            return chosen
        return file.trust_remote_code or self.checkpoint.is_known_code(file.trusted_code)

    def token_counter(self) -> TokenCounter | None:
        return token_counter(self.checkpoint.path)

    def context_limits(self) -> Sequence[ContextLimit]:
        found = [*self.engine.context_options.items(), ("config.json", self.checkpoint.max_position_embeddings)]
        return [ContextLimit(tokens, source) for source, tokens in found if tokens is not None]

    @cached_property
    def engine(self) -> Engine:
        first = self._engine(self.options.gpu, self.options.wait or 0.0)
        gpu = self.options.gpu
        if gpu is None or self.options.servers == 1 or not first.gpu_count:
            return first
        return self._engine(groups_of(gpu, first.gpu_count)[0], self.options.wait or 0.0)

    def elsewhere(self, *, on_gpus: bool) -> tuple[str, int]:
        """The engine for other machines, with or without GPUs, and how many GPUs it takes, as far as the options say.

        Raises BundleError if the engine must be installed here to know.
        """
        name = self.options.engine
        if name == "auto":
            name = "lmdeploy" if on_gpus else "transformers"
        job = Job(self.checkpoint, self._machine, settings=self._settings(name), arguments=self.arguments)
        return name, ENGINES[name](job).gpu_count if name in ENGINES else 0

    async def _further_specs(self, screen: Screen, *, plain: bool, scores: bool) -> list[ServerSpec]:
        """How to serve the checkpoint on further GPUs, as many as ``--replicas`` asks for and as there are."""
        wanted, gpu, count = self.options.servers, self.options.gpu, self.engine.gpu_count
        groups = [] if gpu is None or not count else groups_of(gpu, count)[1:]
        if wanted == ALL and not count:
            return []  # one server takes all of the CPU
        found: list[ServerSpec] = []
        while wanted == ALL or len(found) + 1 < wanted:
            if gpu is not None and count and not groups:
                if wanted != ALL:
                    screen.say(f"{len(found) + 1} of {wanted} servers: --gpu {gpu} names no more GPUs")
                break
            try:
                engine = self._engine(groups.pop(0) if groups else None, 0.0)
                say = PrefixedScreen(screen, f"server {len(found) + 2}").say
                found.append(await in_thread(lambda: engine.prepare(say, plain=plain, scores=scores)))  # noqa: B023 - waited for
            except (ServerError, UsageError) as error:
                if wanted != ALL:
                    screen.say(f"{len(found) + 1} of {wanted} servers: {error.message}")
                break
        return found

    def _engine(self, gpu: str | None, wait_s: float) -> Engine:
        options = self.options
        job = Job(
            self.checkpoint,
            self._machine,
            arguments=self.arguments,
            trust_remote_code=self.trusted,
            gpu=gpu,
            wait_s=wait_s,
            host=options.host,
        )
        return choose_engine(options.engine, self._named_model_file[1], job)

    def record(self) -> LocalModelRecord:
        """The checkpoint, for ``run.json``. Reads samples of its weights."""
        checkpoint = self.checkpoint
        path, adapter = self.given
        return LocalModelRecord(
            path=str(path),
            architecture=checkpoint.architecture,
            weight_bytes=checkpoint.weights.size,
            quantization=checkpoint.quantization,
            fingerprint=fingerprint(checkpoint),
            adapter=None if adapter is None else str(adapter),
        )

    def require_possible(self, plan: Plan, questions: Sequence[Question] = ()) -> None:
        self._require_possible(plan, self.engine.name, scores_texts=self.engine.scores_texts)
        _, interpreter = self.engine.forecast() if questions else ([], None)
        if interpreter is not None:
            proof = prove_tokenizer(
                self.checkpoint.path,
                python=interpreter,
                trust_remote_code=self.trusted,
                conversations=[question.messages for question in choose_prompts(questions, 1)[0]],
                uses_template=not plan.requests.plain and not self._chosen_template,
                template_arguments=template_arguments(understood(plan.requests.extra_body)),
            )
            asyncio.run(proof)

    def begin(self, plan: Plan, engine: str, *, scores_texts: bool, screen: Screen) -> None:
        """Announce the run, once it is known to be possible. Raises BundleError if it is not.

        Args:
            engine: The engine's name.
            scores_texts: As `Engine.scores_texts`.
        """
        self._require_possible(plan, engine, scores_texts=scores_texts)
        path, adapter = self.given
        named = f"checkpoint {path}" + (f" with adapter {adapter}" if adapter else "")
        screen.heading(plan.tasks, f"{named}, engine {engine}", plan.sources())
        if self.checkpoint.weights_unchecked is not None:
            screen.say(f"weights not compared with config.json: {self.checkpoint.weights_unchecked}")

    def _require_possible(self, plan: Plan, engine: str, *, scores_texts: bool) -> None:
        if self.options.servers != 1 and plan.options.qps is not None:
            raise UsageError(
                "--qps cannot be kept by several servers together.", remedy="Leave out --qps or --replicas."
            )
        if not scores_texts and (scored := [task.name for task in plan.tasks if task.by_likelihood]):
            raise UsageError(
                f"{', '.join(scored)} needs log-probabilities of the prompt, which the {engine} server does not "
                "report.",
                remedy="Use lmdeploy 0.18 (its PyTorch engine), --engine vllm, or the same benchmark's _gen task.",
            )
        if not plan.requests.plain and not self._chosen_template:
            require_chat_template(self.checkpoint)

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "LocalModel":
        self.begin(plan, self.engine.name, scores_texts=self.engine.scores_texts, screen=screen)
        requests = plan.requests
        model = await self.model(requests, screen, timing)
        if self.options.servers != 1:
            further = await self._further_specs(screen, plain=requests.plain, scores=requests.scores)
            model.helpers = [
                LocalModel(self, one, requests, PrefixedScreen(screen, f"server {number}"), Timing())
                for number, one in enumerate(further, 2)
            ]
        return model

    async def model(self, requests: Requests, screen: Screen, timing: Timing) -> "LocalModel":
        """Prepare one server. Raises BundleError if the model cannot be served, or not be asked like this."""
        checkpoint, options, engine = self.checkpoint, self.options, self.engine
        if options.engine == "auto" and (none := why_no_gpu(self._machine.nvidia)) is not None:
            screen.say(f"serving on the CPU (slow): {none.why}")
        with timing.phase("start_s"):
            spec = await in_thread(lambda: engine.prepare(screen.say, plain=requests.plain, scores=requests.scores))
        if spec.own_code and checkpoint.remote_code and self.trusted:
            source = "--trust-remote-code" if options.trust_remote_code else f"model file {self._named_model_file[0]}"
            names = ", ".join(checkpoint.remote_code_names)
            screen.say(f"allowing the checkpoint's own Python code ({source}): {names}")
        if requests.plain and not self._has_template:
            screen.say("no chat template: prompting as a base model, with plain text (--prompt-shape plain)")
        return LocalModel(self, spec, requests, screen, timing)

    def given_to(self, engine: str) -> dict[str, Any]:
        """What an engine is given by the user and by the model file, as in `EngineRecord`."""
        settings = self._settings(engine)
        return {
            "name": engine,
            "arguments": tuple(self.arguments),
            "file_arguments": settings.args,
            "file_environment": without_keys(settings.env),
        }

    def _settings(self, engine: str) -> EngineSettings:
        found: EngineSettings = getattr(self._named_model_file[1], engine, EngineSettings())
        return found

    def kill(self) -> None:
        for supervisor in self.running:
            supervisor.kill()


class LocalModel(Prepared):
    """A checkpoint on one set of GPUs: its servers, one after the other, and a client for them."""

    def __init__(self, local: Local, spec: ServerSpec, requests: Requests, screen: Screen, timing: Timing) -> None:
        self.label = local.checkpoint.name
        self.max_restarts = local.options.max_restarts
        self.concurrency = spec.concurrency
        self.gpus = spec.gpus
        self.spec = spec
        self._local = local
        self._requests = requests
        self._screen = screen
        self._timing = timing
        self._stop: Mapping[str, Any] = {}

    @property
    def extra_body(self) -> Mapping[str, Any]:
        return {**(self.spec.greedy if self._requests.temperature == 0 else {}), **self._stop}

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
            vocabulary=self.spec.tokenizer_directory,
        )
        await importing

    async def prove(self, conversations: Sequence[Conversation]) -> Sequence[RenderedPrompt]:
        """Prove the tokenizer; return what it makes of these prompts. Raises BundleError if it does not pass."""
        spec = self.spec
        proof = await prove_tokenizer(
            spec.tokenizer_directory,
            python=spec.interpreter,
            trust_remote_code=spec.own_code,
            conversations=conversations,
            uses_template=not self._requests.plain and spec.chosen_template is None,
            template_arguments=template_arguments(understood(self._requests.extra_body)),
        )
        if self._requests.plain:  # ends where the checkpoint's files say, as in OpenCompass's configs of base models
            return proof.conversations
        if proof.chosen_template is not None:
            files = "chat_template.jinja and tokenizer_config.json have different chat templates"
            self._screen.say(f"{files}: prompts are made with that of {proof.chosen_template}")
        self._stop = stop_fields(spec, proof)
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
        engine = EngineRecord(
            **self._local.given_to(spec.engine),
            version=spec.version,
            dtype=spec.dtype,
            gpus=tuple(gpu.name for gpu in spec.gpus),
        )
        return Served(self._local.record(), engine)

    def close(self) -> None:
        if self.spec.gpu_locks is not None:
            self.spec.gpu_locks.release()
        for helper in self.helpers:
            helper.close()

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        screen, options, running = self._screen, self._local.options, self._local.running
        memory = GpuMemory(self.spec.gpus)

        async def until_memory_is_free() -> None:
            if (held := await memory.wait_until_free()) is not None:
                screen.say(f"warning: {held}")

        supervisor = Supervisor(
            self.spec,
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
            longer_replies = max(1.0, self._requests.longest_reply / _USUAL_REPLY)
            silence_s = options.hang_timeout or self.spec.longest_silence_s * longer_replies

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

        asked = self._requests
        return ChatClient(
            server.base_url,
            [server.api_key],
            self.spec.served_name,
            temperature=asked.temperature,
            timeout_s=asked.timeout_s or _TIMEOUT_S,
            retries=_RETRIES if asked.retries is None else asked.retries,
            proxies=False,
            qps=asked.qps,
            stream=asked.stream,
            extra_body=understood(asked.extra_body),
            answer_from_thinking=asked.answer_from_thinking,
            thinking=asked.thinking,
            scoring=self.spec.scoring,
            only_this_model=True,
            say=self._screen.say,
        )


def understood(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as every engine understands them: some remote APIs have ``enable_thinking`` as one of its own."""
    fields = dict(fields)
    if "enable_thinking" in fields:
        thinking = {"enable_thinking": fields.pop("enable_thinking")}
        fields["chat_template_kwargs"] = thinking | fields.get("chat_template_kwargs", {})
    return fields


def template_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of a request hand the chat template; engines hand it how much to think as well."""
    effort = {name: fields[name] for name in ("reasoning_effort",) if name in fields}
    return {**fields.get("chat_template_kwargs", {}), **effort}


def stop_fields(spec: ServerSpec, proof: TokenizerProof) -> dict[str, list[str] | list[int]]:
    """What requests must hold so that replies stop where the chat template ends a turn; usually nothing."""
    if not proof.stop_token_ids or proof.end_of_turn is None:
        return {}
    match spec.stop_field:
        case "stop":
            return {"stop": [proof.end_of_turn]}
        case "stop_token_ids":
            return {"stop_token_ids": list(proof.stop_token_ids)}
        case None:
            return {}
