"""What every evaluation does, wherever its model is served: load, write down, ask, report."""

import asyncio
import contextlib
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bundle.config.model_files import ModelFile
from bundle.errors import BundleError
from bundle.pipeline.plan import CountTokens, Plan, plan_tasks
from bundle.pipeline.requests import EvaluationRequest
from bundle.reports.formats.submission_files import write_submissions
from bundle.reports.screen.console import Screen
from bundle.runs.prompts import PROMPTS, prompt_lines
from bundle.runs.record import describe_machine, require_same
from bundle.runs.run import RECORD, RESULTS, Run
from bundle.system.background import in_thread
from bundle.system.open_files import connections_allowed
from bundle.tasks.catalog import Question
from bundle.tasks.sources import Tables

if TYPE_CHECKING:  # these take most of a second to import, and the server is to be on its way before
    from bundle.client.client import ChatClient
    from bundle.evaluation.evaluation import AskingOptions, Evaluation
    from bundle.reports.gates.conclusion import Conclusion

_ALLOCATIONS_BEFORE_GC = 20_000

EXIT_DONE, EXIT_UNANSWERED, EXIT_INTERRUPTED = 0, 4, 130


@dataclass(frozen=True, slots=True)
class Loaded:
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

    def __init__(self, request: EvaluationRequest, screen: Screen, conclusion: "Conclusion | None") -> None:
        self._request = request
        self._screen = screen
        self._conclusion = conclusion
        self._timing: dict[str, float] = {}
        self._run: Run | None = None
        self._evaluation: Evaluation | None = None

    def ending(self) -> None:
        """Tell the user that it has been asked to end and is about to."""
        self._screen.say("ending; once more ends it at once")

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
                self._report(EXIT_INTERRUPTED)
                self._screen.say("interrupted; the answers until then are kept")
                return EXIT_INTERRUPTED
            except BundleError as error:
                try:
                    self._report(error.exit_code)
                except BundleError as later:
                    self._screen.say(later.message)  # what went wrong first is what must be heard
                raise
            return self._report(EXIT_DONE)

    @abstractmethod
    async def _perform(self, closing: contextlib.ExitStack) -> None:
        """Do all of it but the report; ``closing`` is left after that."""

    def _plan(self, model: ModelFile) -> Plan:
        request = self._request
        plan = plan_tasks(request, model)
        if self._conclusion is not None:
            self._conclusion.require_possible(plan.tasks, plan.subjects, plan.shapes, request.subjects, request.limit)
        return plan

    async def _load(self, plan: Plan, count_tokens: Callable[[], CountTokens | None]) -> Loaded:
        def load() -> Loaded:
            tables, questions = plan.load(self._screen.say, count_tokens)
            return Loaded(tables, questions, "".join(prompt_lines(questions)).encode())

        with self._phase("load_s"):
            return await in_thread(load)

    def _open_run(self, label: str, closing: contextlib.ExitStack) -> Run:
        request = self._request
        if request.resume is None:
            run = Run.create(request.out, label)
        else:
            from bundle.runs.recorded_run import find_run

            run = Run.resume(find_run(request.resume, request.out))
        self._run = closing.enter_context(run)
        return self._run

    def _begin(self, run: Run, plan: Plan, loaded: Loaded, served: dict[str, Any], options: "AskingOptions") -> None:
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
        if self._conclusion is not None:
            self._conclusion.require_same_data(record)
        run.write(RECORD, record)
        run.write_bytes(PROMPTS, loaded.prompts)
        self._evaluation = Evaluation(plan.tasks, loaded.questions, run, self._screen.answered)
        if shortened := plan.shortened(loaded.questions):
            self._screen.say(f"{shortened} questions are asked with fewer examples, to fit max_seq_len")

    async def _ask(self, plan: Plan, client: "ChatClient", options: "AskingOptions", *, ours: bool = False) -> None:
        """Ask what has no reply yet."""
        evaluation = self._evaluation
        assert evaluation is not None
        # Packages and questions stay until the end, and what a request leaves is mostly gone without a search. To
        # search all of it for garbage as often as Python does by itself takes a tenth of the time.
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS_BEFORE_GC, 10, 10)
        with self._phase("ask_s"), self._screen.asking(len(evaluation.unanswered), len(evaluation.predictions)):
            async with client:
                await evaluation.ask(client, plan.max_out_len, options, ours=ours)
        if self._request.rpm_verbose:
            self._screen.say(f"{client.achieved_qpm:.1f} requests in the last minute")

    def _options(self, concurrency: int, *, adaptive: bool) -> "AskingOptions":
        from bundle.evaluation.evaluation import AskingOptions

        allowed = connections_allowed()
        if concurrency > allowed and self._evaluation is None:
            self._screen.say(
                f"{allowed} requests in flight at most instead of {concurrency}: this program may open no more files "
                "(`ulimit -n`)"
            )
        concurrency = min(concurrency, allowed)
        return AskingOptions(
            concurrency,
            adaptive=adaptive,
            full_replies=self._request.full_replies,
            prefix_order=self._request.prefix_order,
        )

    def _report(self, code: int) -> int:
        """Write down and show what there is; return the exit code it deserves, which is ``code`` where that is bad."""
        self._screen.close()
        if self._run is None or self._evaluation is None:
            return EXIT_UNANSWERED
        results = self._evaluation.results(self._timing)
        try:
            self._run.flush()
            self._run.write(RESULTS, results.to_json())
        finally:
            self._screen.results(self._evaluation, results, all_subjects=self._request.all_subjects)
        for line in write_submissions(self._evaluation, self._run):
            self._screen.note(line)
        if code == EXIT_DONE and results.answered < results.total:
            code = EXIT_UNANSWERED
        if self._conclusion is not None:
            code = self._conclude(self._conclusion, self._run, code)
        self._screen.last(self._run.directory)
        return code

    def _conclude(self, conclusion: "Conclusion", run: Run, code: int) -> int:
        try:
            run.flush()
            return conclusion.conclude(run.directory, code, self._screen.note)
        except BundleError as error:
            if code == EXIT_DONE:
                raise
            self._screen.note(error.message)  # what went wrong first is what ends the run
            return code

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._timing[name] = self._timing.get(name, 0.0) + time.perf_counter() - started
