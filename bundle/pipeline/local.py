"""A checkpoint, served on this machine: a fresh server after each death."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from bundle.checkpoints import (
    TokenCounter,
    prove_tokenizer,
    require_chat_template,
    token_counter,
)
from bundle.config.model_files import ModelFile
from bundle.errors import ServerError, UsageError
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.local_model import LocalModel, template_arguments
from bundle.pipeline.options import ALL
from bundle.pipeline.plan import Plan, Requests
from bundle.pipeline.servers import PrefixedScreen
from bundle.pipeline.targets import Target, Timing
from bundle.pipeline.template_proof import choose_prompts
from bundle.reports.screen.console import Screen
from bundle.serving.engine import Engine, Job, ServerSpec
from bundle.serving.engines import ENGINES, choose_engine
from bundle.serving.gpus import groups_of
from bundle.serving.machine import Machine
from bundle.serving.missing_gpus import why_no_gpu
from bundle.system.background import in_thread
from bundle.tasks.catalog import Question


class Local(Target):
    """The target of ``bundle eval-local``."""

    def __init__(self, given: LocalCheckpoint, machine: Machine) -> None:
        self.given = given
        self.options = given.options
        self._machine = machine
        self._models: list[LocalModel] = []

    async def open(self, screen: Screen) -> None:
        await self.given.open(screen)

    @property
    def model_file(self) -> ModelFile:
        return self.given.model_file

    def token_counter(self) -> TokenCounter | None:
        return token_counter(self.given.checkpoint.path)

    def context_limits(self) -> Sequence[ContextLimit]:
        found = [*self.engine.context_options.items(), ("config.json", self.given.checkpoint.max_position_embeddings)]
        return [ContextLimit(tokens, source) for source, tokens in found if tokens is not None]

    @cached_property
    def engine(self) -> Engine:
        """That of the first server."""
        given, options = self.given, self.options
        job = Job(
            given.checkpoint,
            self._machine,
            arguments=given.arguments,
            trust_remote_code=given.trusted,
            gpu=options.gpu,
            wait_s=options.wait or 0.0,
            host=options.host,
        )
        engine = choose_engine(options.engine, given.named_model_file[1], job)
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
        given = self.given
        job = Job(given.checkpoint, self._machine, settings=given.settings(name), arguments=given.arguments)
        return name, ENGINES[name](job).gpu_count if name in ENGINES else 0

    async def _further_specs(self, first: ServerSpec, screen: Screen, *, plain: bool, scores: bool) -> list[ServerSpec]:
        """How to serve the checkpoint on further GPUs, as many as ``--replicas`` asks for and as there are.

        GPUs on which it would be computed otherwise than by the first server are left out: one run has one record.
        """
        wanted, gpu, count = self.options.servers, self.options.gpu, self.engine.gpu_count
        groups = [] if gpu is None or not count else groups_of(gpu, count)[1:]
        if wanted == ALL and not count:
            return []  # one server takes all of the CPU
        found: list[ServerSpec] = []
        left_out: list[ServerSpec] = []  # their GPUs stay locked meanwhile, so that others are chosen
        while wanted == ALL or len(found) + 1 < wanted:
            if gpu is not None and count and not groups:
                if wanted != ALL:
                    screen.say(f"{len(found) + 1} of {wanted} servers: --gpu {gpu} names no more GPUs")
                break
            try:
                job = replace(self.engine.job, gpu=groups.pop(0) if groups else None, wait_s=0.0)
                engine = replace(self.engine, job=job)
                say = PrefixedScreen(screen, f"server {len(found) + 2}").say
                spec = await in_thread(lambda: engine.prepare(say, plain=plain, scores=scores))  # noqa: B023 - waited for
            except (ServerError, UsageError) as error:
                if wanted != ALL:
                    screen.say(f"{len(found) + 1} of {wanted} servers: {error.message}")
                break
            (left_out if (otherwise := _otherwise(spec, first)) else found).append(spec)
            if otherwise:
                screen.say(f"not used: GPU {', '.join(map(str, spec.gpus))}, where {otherwise}")
        for spec in left_out:
            if spec.gpu_locks is not None:
                spec.gpu_locks.release()
        return found

    def require_possible(self, plan: Plan, questions: Sequence[Question] = ()) -> None:
        self._require_possible(plan, self.engine.name, scores_texts=self.engine.scores_texts)
        _, interpreter = self.engine.forecast() if questions else ([], None)
        if interpreter is not None:
            proof = prove_tokenizer(
                self.given.checkpoint.path,
                python=interpreter,
                trust_remote_code=self.given.trusted,
                conversations=[question.messages for question in choose_prompts(questions, 1)[0]],
                uses_template=not plan.requests.plain and not self.given.chosen_template,
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
        path, adapter = self.given.directories
        named = f"checkpoint {path}" + (f" with adapter {adapter}" if adapter else "")
        screen.heading(plan.tasks, f"{named}, engine {engine}", plan.sources)

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
        if not plan.requests.plain and not self.given.chosen_template:
            require_chat_template(self.given.checkpoint)

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> LocalModel:
        self.begin(plan, self.engine.name, scores_texts=self.engine.scores_texts, screen=screen)
        requests = plan.requests
        model = await self.model(requests, screen, timing)
        if self.options.servers != 1:
            further = await self._further_specs(model.spec, screen, plain=requests.plain, scores=requests.scores)
            model.helpers = [
                self._local_model(one, requests, PrefixedScreen(screen, f"server {number}"), Timing())
                for number, one in enumerate(further, 2)
            ]
        return model

    async def model(self, requests: Requests, screen: Screen, timing: Timing) -> LocalModel:
        """Prepare one server. Raises BundleError if the model cannot be served, or not be asked like this."""
        checkpoint, options, engine = self.given.checkpoint, self.options, self.engine
        if options.engine == "auto" and (none := why_no_gpu(self._machine.nvidia)) is not None:
            screen.say(f"serving on the CPU (slow): {none.why}")
        with timing.phase("start_s"):
            spec = await in_thread(lambda: engine.prepare(screen.say, plain=requests.plain, scores=requests.scores))
        if spec.model.own_code and checkpoint.remote_code and self.given.trusted:
            source = (
                "--trust-remote-code" if options.trust_remote_code else f"model file {self.given.named_model_file[0]}"
            )
            names = ", ".join(checkpoint.remote_code_names)
            screen.say(f"allowing the checkpoint's own Python code ({source}): {names}")
        if requests.plain and not self.given.has_template:
            screen.say("no chat template: prompting as a base model, with plain text (--prompt-shape plain)")
        return self._local_model(spec, requests, screen, timing)

    def _local_model(self, spec: ServerSpec, requests: Requests, screen: Screen, timing: Timing) -> LocalModel:
        model = LocalModel(self.given, spec, requests, screen, timing)
        self._models.append(model)
        return model

    def kill(self) -> None:
        for model in self._models:
            model.kill()


def _otherwise(spec: ServerSpec, first: ServerSpec) -> str | None:
    """In what a further server would compute, and the first does not; None if there is no difference."""
    for name in ("version", "backend", "dtype"):
        theirs, ours = (getattr(one, name) or "its default" for one in (spec, first))
        if theirs != ours:
            return f"the engine's {name} would be {theirs} and not {ours}, as the first server's"
    return None
