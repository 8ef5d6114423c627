"""A whole run, from top to bottom: check, serve, ask, score, write down, clean up."""

import asyncio
import contextlib
import difflib
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bundle.background import in_thread
from bundle.config import file_names
from bundle.errors import BundleError, ServerError, UsageError
from bundle.model_files import ModelFile, RemoteSettings, keys_from_environment, model_file, model_file_for
from bundle.planning import CountTokens, Plan, plan_tasks
from bundle.prompt_record import PROMPTS, prompt_lines
from bundle.record import describe_machine, require_same
from bundle.reports.console import Screen
from bundle.reports.submission import write_submissions
from bundle.requests import EvaluationRequest, LocalServer, RemoteServer
from bundle.runs import RECORD, RESULTS, Run
from bundle.serving.checkpoint import Checkpoint, inspect_checkpoint, require_architecture, require_leave
from bundle.serving.engines import Engine
from bundle.serving.fingerprint import fingerprint
from bundle.serving.machine import Machine
from bundle.serving.selection import choose_engine
from bundle.serving.supervisor import Server, Supervisor
from bundle.serving.tokenizer import prove_tokenizer
from bundle.serving.watch import wait_for_trouble
from bundle.tasks.catalog import Question
from bundle.tasks.sources import Tables
from bundle.token_counter import token_counter

if TYPE_CHECKING:  # these take most of a second to import, and the server is to be on its way before
    from bundle.evaluation.client import ChatClient
    from bundle.evaluation.evaluation import AskingOptions, Evaluation

T = TypeVar("T")

EXIT_DONE, EXIT_UNANSWERED, EXIT_INTERRUPTED = 0, 4, 130

_LOCAL_TIMEOUT_S, _LOCAL_RETRIES = 600.0, 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is asked.

    Attributes:
        tables: The rows, one of a task.
        questions: The questions of all tasks.
        prompts: The content of ``prompts.jsonl``.
    """

    tables: Sequence[Tables]
    questions: Sequence[Question]
    prompts: bytes


class Pipeline(ABC):
    """One run of an evaluation command."""

    def __init__(self, request: EvaluationRequest, screen: Screen) -> None:
        self._request = request
        self._screen = screen
        self._timing: dict[str, float] = {}
        self._run: Run | None = None
        self._evaluation: Evaluation | None = None

    @abstractmethod
    def kill(self) -> None:
        """End at once whatever was started: for the user who presses Ctrl-C twice."""

    async def execute(self) -> int:
        """Run it, and return the exit code. Cancelling it ends it in order, with a table of what there is.

        Raises:
            BundleError: It could not be done; what was answered until then is on disk and on the screen.
        """
        with contextlib.ExitStack() as closing:
            try:
                with self._phase("total_s"):
                    await self._perform(closing)
            except asyncio.CancelledError:
                self._report()
                self._screen.say("interrupted; the answers until then are kept")
                return EXIT_INTERRUPTED
            except BundleError:
                self._report()
                raise
            return self._report()

    @abstractmethod
    async def _perform(self, closing: contextlib.ExitStack) -> None:
        """Do all of it but the report; ``closing`` is left after that."""

    async def _load(self, plan: Plan, count_tokens: Callable[[], CountTokens | None]) -> "_Loaded":
        def load() -> _Loaded:
            tables, questions = plan.load(self._screen.say, count_tokens)
            return _Loaded(tables, questions, "".join(prompt_lines(questions)).encode())

        with self._phase("load_s"):
            return await in_thread(load)

    def _open_run(self, label: str, closing: contextlib.ExitStack) -> Run:
        request = self._request
        if request.resume is None:
            run = Run.create(request.out, label)
        else:
            by_id = request.out / request.resume
            run = Run.resume(by_id if by_id.is_dir() and not request.resume.is_dir() else request.resume)
        self._run = closing.enter_context(run)
        return self._run

    def _begin(self, run: Run, plan: Plan, loaded: "_Loaded", served: dict[str, Any], options: "AskingOptions") -> None:
        """Write down what is asked, and of whom."""
        from bundle.evaluation.evaluation import Evaluation

        record = {
            **plan.describe(loaded.tables),
            **served,
            "sampling": plan.sampling(),
            **asdict(options),
            **describe_machine(),
        }
        if self._request.resume is not None:
            require_same(run.read_record(), record)
        run.write(RECORD, record)
        run.write_bytes(PROMPTS, loaded.prompts)
        self._evaluation = Evaluation(plan.tasks, loaded.questions, run, self._screen.answered)
        if shortened := plan.shortened(loaded.questions):
            self._screen.say(f"{shortened} questions are asked with fewer examples, to fit max_seq_len")

    async def _ask(self, plan: Plan, client: "ChatClient", options: "AskingOptions") -> None:
        """Ask what has no reply yet."""
        evaluation = self._evaluation
        assert evaluation is not None
        with self._phase("ask_s"), self._screen.asking(len(evaluation.unanswered), len(evaluation.predictions)):
            async with client:
                await evaluation.ask(client, plan.max_out_len, options)
        if self._request.rpm_verbose:
            self._screen.say(f"{client.achieved_qpm:.1f} requests in the last minute")

    def _options(self, concurrency: int, *, adaptive: bool) -> "AskingOptions":
        from bundle.evaluation.evaluation import AskingOptions

        return AskingOptions(
            concurrency,
            adaptive=adaptive,
            full_replies=self._request.full_replies,
            prefix_order=self._request.prefix_order,
        )

    def _report(self) -> int:
        """Write down and show what there is; return the exit code it deserves."""
        self._screen.close()
        if self._run is None or self._evaluation is None:
            return EXIT_UNANSWERED
        results = self._evaluation.results(self._timing)
        self._run.write(RESULTS, results.to_json())
        self._screen.results(self._evaluation, results, all_subjects=self._request.all_subjects)
        for line in write_submissions(self._evaluation, self._run):
            self._screen.note(line)
        self._screen.last(self._run.directory)
        return EXIT_DONE if results.answered == results.total else EXIT_UNANSWERED

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._timing[name] = self._timing.get(name, 0.0) + time.perf_counter() - started


class LocalPipeline(Pipeline):
    """One run of ``bundle eval-local``."""

    def __init__(self, request: EvaluationRequest, server: LocalServer, machine: Machine, screen: Screen) -> None:
        super().__init__(request, screen)
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
        trusted = wanted.trust_remote_code or model.trust_remote_code
        require_leave(checkpoint, trusted=trusted)
        plan = plan_tasks(self._request, model)
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
        async with _first_fault_only(), asyncio.TaskGroup() as group:
            loading = group.create_task(self._load(plan, lambda: token_counter(checkpoint)))
            with self._phase("start_s"):
                await in_thread(lambda: engine.prepare(screen.say))
            run = self._open_run(f"{plan.label}-{checkpoint.path.name}", closing)
            options = self._options(self._request.concurrency or engine.concurrency, adaptive=False)
            launched = asyncio.Event()
            # The proof takes a second or two, and so does importing the client: all while the server loads, so that it
            # costs no time, and not before, so that the server has not to wait for it.
            proving = group.create_task(
                _after(
                    launched,
                    lambda: prove_tokenizer(
                        engine.tokenizer_directory, python=engine.interpreter, trust_remote_code=trusted
                    ),
                )
            )
            module = "bundle.evaluation.client"
            group.create_task(_after(launched, lambda: in_thread(lambda: importlib.import_module(module))))

            async def ready() -> None:
                """What must be there, besides a server, before the first question is asked."""
                with self._phase("prove_s"):
                    if not (loading.done() and proving.done()):
                        screen.server("ready; waiting for the data and the proof of the tokenizer")
                    loaded = await loading
                    await proving
                served = await in_thread(lambda: _describe_served(checkpoint, engine, self._server))
                self._begin(run, plan, loaded, served, options)

            trouble = await self._one_life(engine, run, plan, options, launched, ready)
            restarts = 0
            while trouble is not None:
                restarts += 1
                self._start_again(trouble, restarts)
                trouble = await self._one_life(engine, run, plan, options, launched, None)

    async def _one_life(
        self,
        engine: Engine,
        run: Run,
        plan: Plan,
        options: "AskingOptions",
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
        async with contextlib.AsyncExitStack() as cleanup:
            with self._phase("start_s"):
                server = await cleanup.enter_async_context(supervisor)
            screen.say(f"server ready after {server.seconds_to_ready:.1f} s")
            if ready is not None:
                await ready()
            client = self._client(server, plan)
            silence_s = wanted.hang_timeout_s or engine.longest_silence_s
            trouble = await _until_done_or_trouble(
                self._ask(plan, client, options), wait_for_trouble(server, client.silent_for, silence_s)
            )
            screen.server("stopping")
            stopping = time.perf_counter()
            if trouble is not None:
                await supervisor.stop(at_once=True)  # it may hang, and nobody waits for anything from it
        self._timing["stop_s"] = self._timing.get("stop_s", 0.0) + time.perf_counter() - stopping
        return trouble

    def _start_again(self, trouble: ServerError, restarts: int) -> None:
        """Say what went wrong with the server and what becomes of its questions; raise it where it is the end."""
        evaluation, screen = self._evaluation, self._screen
        assert evaluation is not None
        for question in evaluation.server_lost():
            screen.say(f"set aside, for the server dies of it: {question.subject} {question.id}")
        left = len(evaluation.unanswered)
        if left and restarts > self._server.max_restarts:
            raise trouble
        screen.say(trouble.message)
        evaluation.server["restarts"] = restarts
        screen.say(f"starting it again ({restarts} of {self._server.max_restarts}): {left} questions are left")

    def _client(self, server: Server, plan: Plan) -> "ChatClient":
        from bundle.evaluation.client import ChatClient

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

    def __init__(self, request: EvaluationRequest, server: RemoteServer, screen: Screen) -> None:
        super().__init__(request, screen)
        self._server = server

    def kill(self) -> None:
        return  # the server is somebody else's

    async def _perform(self, closing: contextlib.ExitStack) -> None:
        from bundle.evaluation.client import ChatClient
        from bundle.evaluation.endpoint import insecure, is_loopback, normalise_base_url, only_model

        request, wanted, screen = self._request, self._server, self._screen
        model = _remote_model_file(wanted)
        remote = model.remote
        base_url = normalise_base_url(_required_base_url(wanted, remote))
        variable = wanted.api_key_env or remote.api_key_env
        keys = keys_from_environment(variable) if variable is not None else []
        if keys and insecure(base_url):
            screen.say(f"warning: the API key is sent to {base_url} without encryption")
        plan = plan_tasks(request, model)
        async with _first_fault_only(), asyncio.TaskGroup() as group:
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


async def _until_done_or_trouble(
    work: Coroutine[Any, Any, None], watch: Coroutine[Any, Any, ServerError]
) -> ServerError | None:
    """Await ``work``; return what is wrong with the server where that ends it."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return watching.result()
        working.result()
    except ServerError as trouble:
        return trouble
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
    return None


async def _after(event: asyncio.Event, work: Callable[[], Awaitable[T]]) -> T:
    """Begin ``work`` when ``event`` is set, and return what it returns."""
    await event.wait()
    return await work()


@contextlib.asynccontextmanager
async def _first_fault_only() -> AsyncIterator[None]:
    """Raise the fault itself where a task group raises a group of them: the others are its consequences."""
    try:
        yield
    except BaseExceptionGroup as group:
        for fault in group.exceptions:
            if isinstance(fault, BundleError):
                raise fault from None
        raise
