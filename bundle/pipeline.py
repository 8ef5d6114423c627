"""A whole run, from top to bottom: check, serve, ask, score, write down, clean up."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import environment
from bundle.background import in_thread
from bundle.errors import BundleError
from bundle.evaluation.client import ChatClient
from bundle.evaluation.evaluation import Evaluation
from bundle.model_files import ModelFile, Sampling, model_file, model_file_for
from bundle.reports.console import Screen
from bundle.runs import Run
from bundle.serving.checkpoint import Checkpoint, inspect_checkpoint, require_architecture, require_leave
from bundle.serving.engines import Engine
from bundle.serving.selection import choose_engine
from bundle.serving.supervisor import Server, Supervisor
from bundle.serving.tokenizer import prove_tokenizer
from bundle.tasks.catalog import Question, Task, find_task
from bundle.tasks.sources import Tables
from bundle.tasks.subjects import Subject

EXIT_DONE, EXIT_UNANSWERED, EXIT_INTERRUPTED = 0, 4, 130


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """What ``bundle eval-local`` is asked to do.

    Attributes:
        model_dir: The checkpoint.
        task: Name or path of the task.
        data: Where the questions come from: "hub", "modelscope", "sample" or a path.
        engine: "auto", "lmdeploy" or "transformers".
        engine_arguments: Passed on to the server's own command line.
        model_file: Name or path of a model file; None for the one meant for the checkpoint's architecture.
        subjects: Names of the subjects asked; None for all.
        limit: How many questions of every subject are asked; None for all.
        concurrency: Requests in flight; None for what fits the server.
        temperature: None for what the model's file says.
        max_out_len: Most tokens a reply may have; None for what the model's file or else the task says.
        out: The directory that run directories are made in.
        trust_remote_code: Leave to run the checkpoint's Python code.
        gpu: Numbers of the GPUs; None for those with the most free memory.
        host: Where the server listens.
        start_timeout_s: Most seconds until the server is ready.
        request_timeout_s: Most seconds a request may take.
        retries: How often a question is asked again after a fault.
    """

    model_dir: Path
    task: str = "ceval_gen"
    data: str = "hub"
    engine: str = "auto"
    engine_arguments: Sequence[str] = ()
    model_file: str | None = None
    subjects: Sequence[str] | None = None
    limit: int | None = None
    concurrency: int | None = None
    temperature: float | None = None
    max_out_len: int | None = None
    out: Path = Path("outputs")
    trust_remote_code: bool = False
    gpu: str | None = None
    host: str = "127.0.0.1"
    start_timeout_s: float = 600.0
    request_timeout_s: float = 600.0
    retries: int = 3


class LocalPipeline:
    """One run of ``bundle eval-local``."""

    def __init__(self, request: LocalRequest, screen: Screen) -> None:
        self._request = request
        self._screen = screen
        self._timing: dict[str, float] = {}
        self._supervisor: Supervisor | None = None
        self._run: Run | None = None
        self._evaluation: Evaluation | None = None

    def kill(self) -> None:
        """End the server at once, whatever is under way: for the user who presses Ctrl-C twice."""
        if self._supervisor is not None:
            self._supervisor.kill()

    async def execute(self) -> int:
        """Run it, and return the exit code. Cancelling it ends it in order, with a table of what there is.

        Raises:
            BundleError: It could not be done; what was answered until then is on disk and on the screen.
        """
        request, screen = self._request, self._screen
        checkpoint = inspect_checkpoint(request.model_dir)
        model_name, model = _choose_model_file(request, checkpoint)
        trusted = request.trust_remote_code or model.trust_remote_code
        require_leave(checkpoint, trusted=trusted)
        task = find_task(request.task)
        subjects = task.select(request.subjects)
        engine = choose_engine(
            request.engine, checkpoint, model, request.engine_arguments, trust_remote_code=trusted, gpu=request.gpu
        )
        require_architecture(checkpoint, engine.architectures, engine.name)
        screen.heading(task, str(checkpoint.path), engine.name, request.data)
        if checkpoint.remote_code:
            leave = "--trust-remote-code" if request.trust_remote_code else f"the model file {model_name}"
            files = ", ".join(checkpoint.remote_code_names)
            screen.say(f"the checkpoint's own Python code may run ({leave}): {files}")
        try:
            with self._phase("total_s"):
                await self._serve_and_ask(checkpoint, model, engine, task, subjects, trusted)
        except asyncio.CancelledError:
            self._report()
            screen.say("interrupted; the answers until then are kept")
            return EXIT_INTERRUPTED
        except BundleError:
            self._report()
            raise
        return self._report()

    async def _serve_and_ask(
        self,
        checkpoint: Checkpoint,
        model: ModelFile,
        engine: Engine,
        task: Task,
        subjects: Sequence[Subject],
        trusted: bool,
    ) -> None:
        request, screen = self._request, self._screen
        # Whichever of these fails first ends the others: nobody waits for a server whose questions are missing.
        async with _first_fault_only(), asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as cleanup:
            loading = group.create_task(self._load(task, subjects))
            with self._phase("start_s"):
                await in_thread(lambda: engine.prepare(screen.say))
                self._run = run = cleanup.enter_context(Run.create(request.out, f"{task.name}-{checkpoint.path.name}"))
                # The proof takes a second or two while the server loads, so it costs no time.
                proving = group.create_task(
                    prove_tokenizer(engine.tokenizer_directory, python=engine.interpreter, trust_remote_code=trusted)
                )
                self._supervisor = Supervisor(
                    engine,
                    log_path=run.server_log,
                    host=request.host,
                    start_timeout=request.start_timeout_s,
                    say=screen.server,
                )
                server = await cleanup.enter_async_context(self._supervisor)
            tables, questions = await loading
            await proving
            sampling = _choose_sampling(request, model, task)
            concurrency = request.concurrency or engine.concurrency
            run.write("run.json", _record(request, checkpoint, engine, task, tables, sampling, concurrency))
            self._evaluation = Evaluation(task, questions, run, screen.answered)
            with self._phase("ask_s"), screen.asking(len(questions)):
                async with _client(server, sampling, request) as client:
                    await _while_alive(server, self._evaluation.ask(client, concurrency))
            screen.server("stopping")

    async def _load(self, task: Task, subjects: Sequence[Subject]) -> tuple[Tables, list[Question]]:
        request = self._request
        with self._phase("load_s"):
            tables = await in_thread(lambda: task.load(request.data, subjects, self._screen.say))
            return tables, list(task.questions(tables, subjects, request.limit))

    def _report(self) -> int:
        """Write down and show what there is; return the exit code it deserves."""
        self._screen.close()
        if self._run is None or self._evaluation is None:
            return EXIT_UNANSWERED
        results = self._evaluation.results(self._timing)
        self._run.write("results.json", results.to_json())
        self._screen.results(self._evaluation.task, results, self._run.directory)
        return EXIT_DONE if results.answered == results.total else EXIT_UNANSWERED

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._timing[name] = time.perf_counter() - started


def _choose_model_file(request: LocalRequest, checkpoint: Checkpoint) -> tuple[str, ModelFile]:
    if request.model_file is not None:
        return request.model_file, model_file(request.model_file)
    return model_file_for(checkpoint.architecture) or ("none", ModelFile(description=checkpoint.architecture))


def _choose_sampling(request: LocalRequest, model: ModelFile, task: Task) -> Sampling:
    """Command line beats file beats task."""
    return Sampling(
        temperature=model.sampling.temperature if request.temperature is None else request.temperature,
        max_out_len=request.max_out_len or model.sampling.max_out_len or task.max_out_len,
    )


def _client(server: Server, sampling: Sampling, request: LocalRequest) -> ChatClient:
    assert sampling.max_out_len is not None
    return ChatClient(
        server.base_url,
        server.api_key,
        server.model,
        temperature=sampling.temperature,
        max_out_len=sampling.max_out_len,
        timeout_s=request.request_timeout_s,
        retries=request.retries,
        proxies=False,
    )


def _record(
    request: LocalRequest,
    checkpoint: Checkpoint,
    engine: Engine,
    task: Task,
    tables: Tables,
    sampling: Sampling,
    concurrency: int,
) -> dict[str, Any]:
    """What was asked: the content of ``run.json``."""
    return {
        "task": task.to_json() | {"subjects": request.subjects, "limit": request.limit},
        "data": {"source": tables.source, "origin": tables.origin, "fingerprint": tables.fingerprint},
        "model": {
            "path": str(checkpoint.path),
            "architecture": checkpoint.architecture,
            "weight_bytes": checkpoint.weight_bytes,
            "quantization": checkpoint.quantization,
        },
        "engine": {"name": engine.name, "version": engine.version, "arguments": list(request.engine_arguments)},
        "sampling": sampling.model_dump(),
        "concurrency": concurrency,
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }


async def _while_alive(server: Server, work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``; a server that dies meanwhile ends it with the diagnosis."""
    working = asyncio.ensure_future(work)
    dying = asyncio.ensure_future(server.wait_for_death())
    try:
        await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise dying.result()
        working.result()
    finally:
        for task in (working, dying):
            task.cancel()
        await asyncio.gather(working, dying, return_exceptions=True)


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
