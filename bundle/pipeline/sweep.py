"""Several checkpoints, or one with several adapters: a run for each, as many at once as there are GPUs, and one table.

A run is a process of its own: ``bundle eval-local CHECKPOINT``, with the options of the sweep. So one that fails takes
no other with it, and everything that holds for one run holds for each of these.
"""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from bundle.checkpoints import Checkpoint
from bundle.config.model_files import ModelFile
from bundle.errors import BundleError, ExitCode, RunError, UsageError, gravest
from bundle.pipeline.checkpoint_folder import Model
from bundle.pipeline.ending import conclusion_of
from bundle.pipeline.gpu_shares import GpuShares
from bundle.pipeline.local import Local
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.options import EvaluationOptions, LocalOptions
from bundle.pipeline.plan import Plan, plan_tasks, require_usable
from bundle.pipeline.servers import PrefixedScreen
from bundle.pipeline.signals import PARENT
from bundle.reports.comparison.page import to_json, write_page
from bundle.reports.comparison.series import Entry, compare_all, show
from bundle.reports.formats import file_name
from bundle.reports.screen.console import Screen
from bundle.reports.screen.output import console
from bundle.reports.texts import Words
from bundle.runs.files import LARGEST_JSON, RECORD, write_json
from bundle.runs.finding import OUTPUTS, is_run, runs_in
from bundle.runs.predictions import count_rows
from bundle.runs.record import LocalModelRecord, RunRecord, Served
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.results import Results
from bundle.runs.run import new_directory
from bundle.runs.same_settings import require_same_plan
from bundle.runs.scoring import headlines
from bundle.serving.machine import Machine
from bundle.system.background import first_fault_only, in_thread
from bundle.system.files import read_regular
from bundle.system.guarded import this_program, undisturbed
from bundle.system.locks import Lock
from bundle.tasks.sources import Tables

_STAMP: Final = re.compile(r"^ *\d+\.\d s  ")
_PASSING: Final = re.compile(
    r"starting |stopping the server|checking the chat template|[\d,]+ of [\d,]+ questions?, .* left\b"
)
"""What a run says of where it is, which on a terminal is one line that is redrawn."""
_WAIT: Final = "1h"
"""How long a run of a sweep waits for a GPU that another program has taken meanwhile."""
_LOOK_EVERY_S: Final = 1.0
_LONGEST_LINE: Final = 2**20
_OF_MEMORY: Final = 2
"""Weights are read ahead if they fit into this part of the free memory: half of it."""

_WHY: Final[Mapping[int, str]] = {
    ExitCode.GATE_NOT_MET: "gate_not_met",
    ExitCode.USAGE: "not_evaluated",
    ExitCode.SERVER: "server_failed",
    ExitCode.UNEXPECTED: "killed",
    ExitCode.INTERRUPTED: "was_interrupted",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model: its run's exit code and, if there is one, the run's directory."""

    model: Model
    code: int
    run: Path | None


class _Due(NamedTuple):
    """A model without a finished run: the one to resume, if there is one, and how many GPUs its server takes."""

    model: Model
    resume: Path | None
    gpus: int


class _Silent(Screen):
    """For what has been said before."""

    def say(self, text: str) -> None:
        """As is."""

    def server(self, activity: str) -> None:
        """Likewise."""


class Sweep:
    """Evaluates checkpoints as they are given. Raises UsageError if an option is for a single run.

    Args:
        arguments: What follows ``--``.
        options: The options as they were typed, without the checkpoints, the adapters and what follows ``--``.
    """

    def __init__(
        self,
        asked: EvaluationOptions,
        served: LocalOptions,
        arguments: Sequence[str],
        options: Sequence[str],
        machine: Machine,
        screen: Screen,
    ) -> None:
        if asked.resume is not None:
            raise UsageError(
                "--resume is for a single checkpoint.",
                remedy="Leave it out: the same command again resumes what is not finished.",
            )
        replicas = None if served.servers == 1 else served.servers
        single = {"--summary": asked.summary, "--junit": asked.junit, "--cluster": served.cluster}
        for option, value in {**single, "--replicas": replicas}.items():
            if value is not None:
                raise UsageError(
                    f"{option} is for a single checkpoint.", remedy="Leave it out, or name one checkpoint."
                )
        require_usable(asked)
        plan_tasks(asked, ModelFile(description=""))  # what is wrong with it is said once
        self._asked = asked
        self._conclusion = conclusion_of(asked)
        self._served = served
        self._arguments = arguments
        self._options = list(options)
        self._machine = machine
        self._screen = screen
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._shares = GpuShares(machine, served.gpu, self._running.keys())
        self._tables: dict[tuple[str, ...], Sequence[Tables]] = {}
        self._outcomes: dict[Model, Outcome | None] = {}

    async def evaluate(self, models: AsyncIterable[Model], label: str) -> int:
        """Evaluate models, the next inspected while others are asked, report them, and return the gravest exit code.

        ``label`` is the end of the name of the report's directory. Cancelling it ends the runs in order, and reports
        those that are done. Raises RunError if the report cannot be written.
        """
        try:
            await self._evaluate(models)
            code = gravest(outcome.code for outcome in self._done)
        except asyncio.CancelledError:
            code = ExitCode.INTERRUPTED
            self._screen.say(self._screen.words("screen.sweep_interrupted"))
        if done := self._done:
            _report(done, self._asked.out, label, self._screen)
        return code

    @property
    def _done(self) -> list[Outcome]:
        """What became of the models that are done, in the order in which they were given."""
        return [one for one in self._outcomes.values() if one is not None]

    async def _evaluate(self, models: AsyncIterable[Model]) -> None:
        async with first_fault_only(), asyncio.TaskGroup() as group:
            async for model in models:
                self._outcomes[model] = None
                if (due := await self._prepare(model, ahead=True)) is not None:
                    group.create_task(self._work(model, await self._shares.take(due.gpus)))

    def interrupt(self) -> None:
        """Interrupt every run: the first time in order, the second time at once."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)

    async def _prepare(self, model: Model, *, ahead: bool = False) -> _Due | None:
        """Inspect a model; None if nothing is left to do for it."""
        screen = PrefixedScreen(self._screen, model.name) if ahead else _Silent()
        try:
            served = replace(self._served, adapter=[model.adapter])
            target = Local(LocalCheckpoint(model.path, served, self._arguments), self._machine)
            await target.open(screen)
            found, is_finished = await in_thread(lambda: self._look(target, ahead=ahead))
            if found is None or not is_finished:
                return _Due(model, found, target.engine.gpu_count)
            self._screen.say(f"{model.name}: evaluated before, in {found}")
            self._end(Outcome(model, self._conclude(model.name, found), found))
        except (BundleError, OSError) as error:  # trainings remove checkpoints, at any moment
            self._screen.say(f"{model.name}: {error}")
            code = error.exit_code if isinstance(error, BundleError) else ExitCode.USAGE
            self._end(Outcome(model, code, None))
        return None

    def _look(self, target: Local, *, ahead: bool) -> tuple[Path | None, bool]:
        """The earlier run of a model, and whether it is finished."""
        plan = plan_tasks(self._asked, target.model_file)
        engine = target.given.given_to(target.engine.name)
        found = _earlier_run(plan, self._tables_of(plan), target.given.record(), engine)
        is_finished = found is not None and self._is_finished(found)
        if ahead and not is_finished:
            _read_ahead(target.given.checkpoint)
        return found, is_finished

    def _is_finished(self, run: Path) -> bool:
        """Whether a run has nothing left to ask. Raises RunError if it is damaged."""
        if (results := Results.read(run)) is None:
            return False  # it was cut off before it could say
        results.require_replies(run, count_rows(run))
        missing = results.coverage.total - results.coverage.answered
        return missing <= self._asked.allow_unanswered and results.is_repeated(self._asked.repeat)

    def _tables_of(self, plan: Plan) -> Sequence[Tables]:
        key = (plan.label, *plan.sources)
        if key not in self._tables:
            self._tables[key] = [one.load(lambda _: None) for one in plan.planned]
        return self._tables[key]

    def _conclude(self, name: str, run: Path) -> int:
        """The exit code of a run that is finished, as its gates say now."""
        if self._conclusion is None:
            return ExitCode.DONE
        screen, words = self._screen, self._screen.words
        return self._conclusion.conclude(run, ExitCode.DONE, lambda line: screen.say(words.labelled(name, line)), words)

    def _end(self, outcome: Outcome) -> None:
        self._outcomes[outcome.model] = outcome
        if outcome.run is None:
            return
        with contextlib.suppress(RunError):  # the table says so
            if (results := Results.read(outcome.run)) is None:
                return
            found = headlines(RunRecord.read(outcome.run).scored_tasks, results.scores)
            if shown := [f"{one.name} {one.score.accuracy:.2f}" for one in found if one.score.accuracy is not None]:
                self._screen.say(f"{outcome.model.name}: {', '.join(shown)}")

    async def _work(self, model: Model, gpus: str) -> None:
        try:
            # Once more: it may have waited for hours, and another program have evaluated it meanwhile.
            while (due := await self._prepare(model)) is not None:
                if not await self._was_in_use(due):
                    await self._run(due, gpus)
                    return
        finally:
            self._shares.give_back(gpus)

    async def _was_in_use(self, due: _Due) -> bool:
        """Wait for another program that evaluates the model in the run to resume; whether there was one."""
        if due.resume is None or not (lock := Lock(due.resume)).is_held():
            return False
        self._screen.say(f"{due.model.name}: waiting for another program, which evaluates it in {due.resume}")
        while lock.is_held():  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(_LOOK_EVERY_S)
        return True

    async def _run(self, due: _Due, gpus: str) -> None:
        name = due.model.name
        self._screen.say(f"{name}: evaluating" if due.resume is None else f"{name}: resuming {due.resume}")
        process = await asyncio.create_subprocess_exec(
            *self._command(due, gpus),
            env=os.environ | {PARENT: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for us, who pass it on
            limit=_LONGEST_LINE,
        )
        self._running[process.pid] = process
        assert process.stdout is not None
        assert process.stderr is not None
        saying = asyncio.ensure_future(say_all(name, process.stderr, self._screen))
        printed = asyncio.ensure_future(process.stdout.read())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({saying, printed, ended})
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):  # it was killed, and what it started is about to end
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(asyncio.CancelledError):
                await undisturbed(saying, printed, ended)
            raise
        finally:
            del self._running[process.pid]
            if ended.done() and printed.done():
                # One that was killed has left no result, which is not a success.
                code = ended.result() if ended.result() >= 0 else ExitCode.UNEXPECTED
                self._end(Outcome(due.model, code, _named_run(printed.result())))

    def _command(self, due: _Due, gpus: str) -> list[str]:
        # Of an option that is given twice the last one counts.
        command = this_program("eval-local", str(due.model.path), *self._options)
        if due.model.adapter is not None:
            command += ["--adapter", str(due.model.adapter)]
        if self._served.wait is None and due.gpus:
            command += ["--wait", _WAIT]
        if gpus:
            command += ["--gpu", gpus]
        if due.resume is not None:
            command += ["--resume", str(due.resume.resolve())]
        return [*command, "--", *self._arguments] if self._arguments else command


async def say_all(name: str, stream: asyncio.StreamReader, screen: Screen) -> None:
    """Show what the run called ``name`` says, line by line."""
    async for line in stream:
        said = _STAMP.sub("", line.decode(errors="replace").rstrip())
        show = screen.server if _PASSING.match(said) else screen.say
        show(f"{name}: {said}")


def _earlier_run(
    plan: Plan, tables: Sequence[Tables], model: LocalModelRecord, engine: Mapping[str, Any]
) -> Path | None:
    """The newest run, finished or not, that asked the same rows of the same checkpoint in the same way; or None.

    Of the checkpoint only its content counts, not where it is. ``engine`` is as from `LocalCheckpoint.given_to`.
    """
    tasks = plan.task_records(tables)

    def is_same(directory: Path) -> bool:
        try:
            if model.fingerprint.encode() not in read_regular(directory / RECORD, LARGEST_JSON):
                return False  # in a fraction of the time that reading it whole takes
            then = RunRecord.read(directory)
            if then.engine is None:
                return False
            served = Served(model, then.engine.model_copy(update=engine))
            require_same_plan(then, tasks, plan.sampling({}), served)
        except (OSError, RunError):
            return False
        return [one.data_fingerprint for one in then.tasks] == [one.data_fingerprint for one in tasks]

    return next(filter(is_same, runs_in(plan.options.out)), None)


def _named_run(printed: bytes) -> Path | None:
    """The run's directory: the last line of what a run prints."""
    lines = printed.decode(errors="surrogateescape").splitlines()
    return Path(lines[-1]) if lines and is_run(Path(lines[-1])) else None


def _read_ahead(checkpoint: Checkpoint) -> None:
    """Have the system read the weights while others are served, if there is room for them in memory."""
    import psutil  # takes 20 ms, which a single run has no use for

    if checkpoint.weights.size > psutil.virtual_memory().available // _OF_MEMORY or not hasattr(os, "posix_fadvise"):
        return
    for file in checkpoint.weights.files:
        with contextlib.suppress(OSError), file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _report(outcomes: Sequence[Outcome], out: Path, label: str, screen: Screen) -> None:
    """Show the table of all models, and write it down."""
    entries = [_entry(one, screen.words) for one in outcomes]
    compare_all(entries)
    screen.close()
    screen.set_apart()
    show(console(sys.stdout, width=200), entries, screen.words)
    directory = new_directory(out, f"sweep-{file_name(label)}")
    comparisons = [one.comparison for one in entries if one.comparison is not None]
    content = {
        "checkpoints": [
            {
                "name": one.model.name,
                "path": str(one.model.given.absolute()),
                "run": None if one.run is None else one.run.name,
                "exit_code": int(one.code),
            }
            for one in outcomes
        ],
        **(to_json(comparisons) if comparisons else {}),
    }
    write_json(directory / "sweep.json", content)
    if comparisons:
        write_page(comparisons, directory / "comparison.html")
        screen.note(screen.words("screen.comparison", path=directory / "comparison.html"))
    where = "" if out == OUTPUTS else f" {shlex.quote(str(out))}"
    screen.note(screen.words("screen.board", where=where))
    screen.last(directory)


def _entry(outcome: Outcome, words: Words) -> Entry:
    if why := _WHY.get(outcome.code, ""):
        why = words("screen.exit_code", why=words(f"screen.{why}"), code=outcome.code)
    if outcome.run is None:
        return Entry(outcome.model.name, None, why)
    try:
        return Entry(outcome.model.name, read_recorded_run(outcome.run), why)
    except RunError as error:
        return Entry(outcome.model.name, None, why or error.message)
