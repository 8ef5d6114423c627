"""A checkpoint, served on this machine: a fresh server after each death."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bundle.checkpoints import (
    Checkpoint,
    TokenCounter,
    fingerprint,
    has_chat_template,
    inspect_checkpoint,
    is_internlm2,
    prove_tokenizer,
    require_chat_template,
    require_trust,
    require_unchanged,
    require_values,
    token_counter,
    when_written,
)
from bundle.config.model_files import EngineSettings, ModelFile, model_file, model_file_for
from bundle.errors import ServerError, UsageError
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.local_model import LocalModel, template_arguments
from bundle.pipeline.options import ALL, LocalOptions
from bundle.pipeline.plan import Plan, Requests
from bundle.pipeline.servers import PrefixedScreen
from bundle.pipeline.targets import Target, Timing
from bundle.pipeline.template_proof import choose_prompts
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, LocalModelRecord, Served
from bundle.serving.arguments import Arguments
from bundle.serving.conversion import CONVERTED, cache_directory
from bundle.serving.engine import Engine, Job, ServerSpec
from bundle.serving.engines import ENGINES, choose_engine
from bundle.serving.gpus import groups_of
from bundle.serving.machine import Machine
from bundle.serving.missing_gpus import why_no_gpu
from bundle.system.background import in_thread
from bundle.system.files import user_path
from bundle.system.guarded import without_keys
from bundle.tasks.catalog import Question


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
        self._models: list[LocalModel] = []
        self._is_dry = dry_run
        self._merged: tuple[Checkpoint, object] | None = None

    async def open(self, screen: Screen) -> None:
        if (adapter := self._adapter) is not None:
            self._merged = await in_thread(lambda: self._merge(adapter, screen))
        # Not on the loop's own thread, which cannot wait for the process that reads .bin files.
        if (note := await in_thread(self._look)) is not None:
            screen.say(f"warning: {note}")

    def _look(self) -> str | None:
        self.require_unchanged()  # from now on
        return require_values(self.checkpoint.weights)

    @property
    def _adapter(self) -> Path | None:
        """The adapter's directory. Raises UsageError if there are several, which are models of their own."""
        if len(self.options.adapter) > 1:
            raise UsageError("A run has one --adapter.", remedy="Name one, or `bundle eval-local` them all.")
        return self.options.adapter[0] if self.options.adapter else None

    def _merge(self, adapter: Path, screen: Screen) -> tuple[Checkpoint, object]:
        from bundle.checkpoints.merge import open_merged  # imported late: most runs need none of it

        cache = None if self._is_dry else cache_directory() / CONVERTED
        return open_merged(self.model_dir, adapter, cache, say=screen.say)

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
        return Arguments(self.arguments).with_hyphens().has("--chat-template")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return inspect_checkpoint(self.model_dir) if self._merged is None else self._merged[0]

    @cached_property
    def _written(self) -> Mapping[Path, tuple[int, int]]:
        return when_written(self.checkpoint)

    def require_unchanged(self) -> None:
        """Raise CheckpointError if the checkpoint has been written to since it was opened."""
        require_unchanged(self.checkpoint, self._written)

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
        """That of the first server."""
        options = self.options
        job = Job(
            self.checkpoint,
            self._machine,
            arguments=self.arguments,
            trust_remote_code=self.trusted,
            gpu=options.gpu,
            wait_s=options.wait or 0.0,
            host=options.host,
        )
        engine = choose_engine(options.engine, self._named_model_file[1], job)
        if options.gpu is None or options.servers == 1 or not engine.gpu_count:
            return engine
        return replace(engine, job=replace(engine.job, gpu=groups_of(options.gpu, engine.gpu_count)[0]))

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
                job = replace(self.engine.job, gpu=groups.pop(0) if groups else None, wait_s=0.0)
                engine = replace(self.engine, job=job)
                say = PrefixedScreen(screen, f"server {len(found) + 2}").say
                found.append(await in_thread(lambda: engine.prepare(say, plain=plain, scores=scores)))  # noqa: B023 - waited for
            except (ServerError, UsageError) as error:
                if wanted != ALL:
                    screen.say(f"{len(found) + 1} of {wanted} servers: {error.message}")
                break
        return found

    def record(self) -> LocalModelRecord:
        """The checkpoint, for ``run.json``. Reads samples of its weights. Raises CheckpointError if it has changed."""
        checkpoint = self.checkpoint
        path, adapter = self.given
        found = fingerprint(checkpoint)
        self.require_unchanged()
        return LocalModelRecord(
            path=str(path),
            architecture=checkpoint.architecture,
            weight_bytes=checkpoint.weights.size,
            quantization=checkpoint.quantization,
            fingerprint=found,
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
                template_arguments=template_arguments(plan.requests.settings.extra_body),
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
        screen.heading(plan.tasks, f"{named}, engine {engine}", plan.sources)
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

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> LocalModel:
        self.begin(plan, self.engine.name, scores_texts=self.engine.scores_texts, screen=screen)
        requests = plan.requests
        model = await self.model(requests, screen, timing)
        if self.options.servers != 1:
            further = await self._further_specs(screen, plain=requests.plain, scores=requests.scores)
            model.helpers = [
                self._local_model(one, requests, PrefixedScreen(screen, f"server {number}"), Timing())
                for number, one in enumerate(further, 2)
            ]
        return model

    async def model(self, requests: Requests, screen: Screen, timing: Timing) -> LocalModel:
        """Prepare one server. Raises BundleError if the model cannot be served, or not be asked like this."""
        checkpoint, options, engine = self.checkpoint, self.options, self.engine
        if options.engine == "auto" and (none := why_no_gpu(self._machine.nvidia)) is not None:
            screen.say(f"serving on the CPU (slow): {none.why}")
        with timing.phase("start_s"):
            spec = await in_thread(lambda: engine.prepare(screen.say, plain=requests.plain, scores=requests.scores))
        if spec.model.own_code and checkpoint.remote_code and self.trusted:
            source = "--trust-remote-code" if options.trust_remote_code else f"model file {self._named_model_file[0]}"
            names = ", ".join(checkpoint.remote_code_names)
            screen.say(f"allowing the checkpoint's own Python code ({source}): {names}")
        if requests.plain and not self._has_template:
            screen.say("no chat template: prompting as a base model, with plain text (--prompt-shape plain)")
        return self._local_model(spec, requests, screen, timing)

    def _local_model(self, spec: ServerSpec, requests: Requests, screen: Screen, timing: Timing) -> LocalModel:
        def served() -> Served:
            gpus = tuple(gpu.name for gpu in spec.gpus)
            given = self.given_to(spec.engine)
            return Served(self.record(), EngineRecord(**given, version=spec.version, dtype=spec.dtype, gpus=gpus))

        checkpoint = self.checkpoint.name
        model = LocalModel(checkpoint, spec, served, self.options, requests, screen, timing, self.require_unchanged)
        self._models.append(model)
        return model

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
        for model in self._models:
            model.kill()
