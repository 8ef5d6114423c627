"""``bundle.load`` and ``bundle.evaluate``: the same runs from a Python program or a notebook."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import pydantic

from bundle.config.faults import value_fault
from bundle.errors import ExitCode, GateError, UnansweredError, UsageError
from bundle.pipeline.local import Local
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.options import EvaluationOptions, LocalOptions, Option, RemoteOptions, parse_adapters, parse_data
from bundle.pipeline.pipeline import evaluate as run_pipeline
from bundle.pipeline.remote import Remote
from bundle.pipeline.targets import Target
from bundle.reports.screen.console import Screen
from bundle.runs.finding import LATEST, OUTPUTS
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.serving.machine import Machine
from bundle.system.text import did_you_mean

T = TypeVar("T")

_COMMAND_ONLY = {"dry_run"}
"""What makes no run."""


def load(run: str | Path = LATEST, *, out: str | Path = OUTPUTS) -> RecordedRun:
    """Read a run: one that is done, was cut off, or still goes on. Raises RunError if there is none, or it is damaged.

    Args:
        run: Its directory, its name or the beginning of it, its model's name for the newest run of that, or ``latest``.
        out: The directory that contains runs.
    """
    return read_recorded_run(Path(run), Path(out))


def evaluate(
    model_dir: str | Path | None = None,
    *,
    base_url: str | None = None,
    model: str | None = None,
    task: str | Path | Sequence[str] = "ceval_gen",
    data: str | Path | Mapping[str, str] | None = None,
    subjects: str | Sequence[str] | None = None,
    limit: int | None = None,
    engine_arguments: Sequence[str] = (),
    verbose: bool = False,
    **options: Any,
) -> RecordedRun:
    """Serve a checkpoint, or call an API, and evaluate the model, as ``bundle eval-local`` and ``eval-remote`` do.

    Works where an event loop runs already, as in a notebook, and in any thread. Interrupting it stops the server and
    keeps the answers so far, raises KeyboardInterrupt, and ``resume=RUN`` goes on with them.

    Raises UnansweredError if some questions have no reply (see ``allow_unanswered``), and GateError if a gate among the
    options is not met: then `load` reads the run. Raises another BundleError if the run failed, or cannot begin.

    Args:
        model_dir: A checkpoint to serve here; or else
        base_url: the address of an OpenAI-compatible API, such as ``http://127.0.0.1:23333/v1``, and
        model: the name it serves the model under, or a model file; None for the only model it lists.
        task: A task or several, each a name or a ``.toml`` file.
        data: Where the questions come from: for all benchmarks, or by benchmark.
        subjects: Only these.
        limit: Only the first so many questions of every subject.
        engine_arguments: Passed on to the server's own command line.
        verbose: Whether to print what the command prints.
        options: Any other option of the command, by its long name with underscores: ``concurrency``, ``out``,
            ``api_key_env``, ``engine``, ``quick``, ``resume``, ``min_score``, …
    """
    if (model_dir is None) == (base_url is None and model is None):
        raise UsageError("Give either model_dir, or base_url and model.")
    target_class = RemoteOptions if model_dir is None else LocalOptions
    tasks = [str(task)] if isinstance(task, str | Path) else list(task)
    given = {"tasks": tasks, "data": _data(data), "subjects": _names(subjects), "limit": limit, **options}
    if (adapter := given.pop("adapter", None)) is not None:
        given["adapter"] = parse_adapters(
            [str(adapter)] if isinstance(adapter, str | Path) else list(map(str, adapter))
        )
    if base_url is not None:
        given["base_url"] = base_url
    if engine_arguments and model_dir is None:
        raise UsageError("engine_arguments are for a server that is started here: give model_dir.")
    known = {name for kind in (EvaluationOptions, target_class) for name in _declared(kind)} - _COMMAND_ONLY
    if unknown := next((name for name in given if name not in known), None):
        raise UsageError(f"evaluate() has no option {unknown!r}.", remedy=did_you_mean(unknown, known))
    asked = _options(EvaluationOptions, given)
    target: Target
    if model_dir is None:
        target = Remote(model, _options(RemoteOptions, given))
    else:
        checkpoint = LocalCheckpoint(Path(model_dir), _options(LocalOptions, given), tuple(engine_arguments))
        target = local = Local(checkpoint, Machine())
        if local.options.cluster is not None:
            from bundle.pipeline.cluster import Cluster  # few runs need it, and it imports the client

            target = Cluster(local, local.options.cluster)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - not a path
        streams = {} if verbose else {"out": nowhere, "err": nowhere}
        screen = _Screen(language=asked.lang, **streams)
        code = _in_own_loop(lambda: run_pipeline(asked, target, screen), kill=target.kill)
    if code == ExitCode.INTERRUPTED or screen.directory is None:
        raise KeyboardInterrupt
    run = read_recorded_run(screen.directory)
    if code == ExitCode.UNANSWERED:
        raise UnansweredError(
            f"{run.total - run.answered} of {run.total} questions have no reply.",
            remedy=f"Continue with resume={str(run.directory)!r}, or read the answers so far with bundle.load.",
        )
    if code == ExitCode.GATE_NOT_MET:
        raise GateError(f"A gate is not met by {run!r}.", remedy=f"bundle.load({str(run.directory)!r}) reads the run.")
    return run


class _Screen(Screen):
    """Remembers where the run is."""

    directory: Path | None = None

    def last(self, directory: Path) -> None:
        self.directory = directory
        super().last(directory)


def _data(data: str | Path | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(data, str | Path):
        return parse_data([str(data)])
    return {name: str(one) for name, one in (data or {}).items()}


def _names(names: str | Sequence[str] | None) -> str | None:
    return names if names is None or isinstance(names, str) else ",".join(names)


def _declared(kind: type[Any]) -> "dict[str, Field[Any]]":
    return {one.name: one for one in fields(kind)}


def _options(kind: type[T], given: Mapping[str, Any]) -> T:
    """An object of a class of options, with what is given for it checked as the command line does."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, one in _declared(kind).items():
        if name not in given:
            continue
        value, option = given[name], one.metadata["option"]
        assert isinstance(option, Option)
        if option.parse is not None and isinstance(value, str):
            value = option.parse(value)
        allowed: Any = Annotated[hints[name], pydantic.Field(ge=option.minimum, le=option.maximum)]
        try:
            values[name] = pydantic.TypeAdapter(allowed).validate_python(value)
        except pydantic.ValidationError as error:
            raise UsageError(f"{name}={value!r}: {value_fault(error)}.") from None
    return kind(**values)


def _in_own_loop(work: Callable[[], Coroutine[Any, Any, int]], kill: Callable[[], None]) -> int:
    """Run a coroutine in a thread of its own, for this one may have an event loop already; return its exit code.

    The first interruption stops it in order, the second at once.
    """
    loop: asyncio.AbstractEventLoop | None = None
    working: asyncio.Task[int] | None = None
    begun = threading.Event()

    async def begin() -> int:
        nonlocal loop, working
        loop, working = asyncio.get_running_loop(), asyncio.current_task()
        begun.set()
        return await work()

    interruptions = 0
    with ThreadPoolExecutor(1, thread_name_prefix="bundle") as pool:
        done = pool.submit(lambda: asyncio.run(begin()))
        while True:
            try:
                return done.result()
            except asyncio.CancelledError:
                return ExitCode.INTERRUPTED
            except KeyboardInterrupt:
                begun.wait()
                assert loop is not None
                assert working is not None
                interruptions += 1
                loop.call_soon_threadsafe(working.cancel if interruptions == 1 else kill)
