"""A whole run, from top to bottom: check, serve, load, record, ask, score, report, clean up."""

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from bundle.errors import BundleError, ExitCode, ServerError, UnexpectedError
from bundle.pipeline.dry_run import dry_run
from bundle.pipeline.ending import conclude, conclusion_of, log_scores, prepare_page, write_page
from bundle.pipeline.options import EvaluationOptions
from bundle.pipeline.plan import Loaded, Plan, plan_tasks, require_usable
from bundle.pipeline.servers import goes_on_after, help_asking, note_gpu_loads
from bundle.pipeline.targets import Prepared, Target, Timing
from bundle.pipeline.template_proof import TemplateProof
from bundle.reports.screen.console import Screen
from bundle.reports.screen.progress import Progress
from bundle.runs.files import RECORD, RESULTS
from bundle.runs.finding import find_run, shortest_name
from bundle.runs.record import CommandRecord, RunRecord
from bundle.runs.results import Results
from bundle.runs.run import Run, require_unused
from bundle.runs.same_settings import require_same_plan
from bundle.runs.scope import planned_selection, task_scopes
from bundle.system.background import first_fault_only, in_thread
from bundle.system.guarded import undisturbed
from bundle.system.limits import connections_allowed
from bundle.system.text import plural

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import Client
    from bundle.evaluation import AskingOptions, Evaluation
    from bundle.reports.gates.conclusion import Conclusion

_ALLOCATIONS_BEFORE_GC = 20_000


@dataclass(slots=True)
class _Session:
    """What all steps of a run share, and how far it has come: what there is to report."""

    options: EvaluationOptions
    screen: Screen
    conclusion: "Conclusion | None"
    command: CommandRecord | None = None
    timing: Timing = field(default_factory=Timing)
    run: Run | None = None
    record: RunRecord | None = None
    earlier: Results | None = None
    evaluation: "Evaluation | None" = None

    @property
    def is_repeated(self) -> bool:
        """Whether an earlier session asked questions again, if that is wanted."""
        times = self.options.repeat
        return times == 1 if self.earlier is None else self.earlier.is_repeated(times)

    @property
    def is_finished(self) -> bool:
        """Whether earlier sessions left nothing to ask."""
        counts = None if self.earlier is None else self.earlier.coverage
        return counts is not None and counts.answered == counts.total and self.is_repeated

    def amend(self, **parts: object) -> None:
        """Replace parts of the record, also where it is written down."""
        assert self.run is not None
        assert self.record is not None
        self.record = self.record.model_copy(update=parts)
        self.run.write(RECORD, self.record.to_json())


async def evaluate(
    options: EvaluationOptions, target: Target, screen: Screen, command: CommandRecord | None = None
) -> int:
    """Evaluate the model of a target, and return the exit code.

    Cancelled, it stops in order. However it ends, it reports what has been answered, also before it raises BundleError
    if the run failed, or UnexpectedError if this program is at fault. ``command`` is how it was started, for `bundle
    resume`; None if it cannot be repeated.
    """
    require_usable(options)
    session = _Session(options, screen, conclusion_of(options), command)
    with contextlib.ExitStack() as opened:
        try:
            async with contextlib.aclosing(target):
                with session.timing.phase("total_s"):
                    await target.open(screen)
                    plan = _plan(session, target, opened)
                    if options.dry_run:
                        await dry_run(plan, target, screen)
                        return ExitCode.DONE
                    await _serve_and_ask(session, plan, target, opened)
        except asyncio.CancelledError:
            _report(session, ExitCode.INTERRUPTED)
            if session.run is not None and session.evaluation is not None:
                name = shortest_name(session.run.directory, options.out)
                how = f"add --resume {name}" if session.command is None else f"bundle resume {name}"
                screen.say(screen.words("screen.interrupted"))
                screen.say(screen.words("screen.to_continue", how=how))  # short enough to stay one line that is copied
            else:
                screen.say("interrupted")
            return ExitCode.INTERRUPTED
        except BundleError as error:
            try:
                _report(session, error.exit_code)
            except BundleError as later:
                screen.say(later.message)  # what went wrong first is what is raised
            raise
        except Exception as error:
            with contextlib.suppress(Exception):
                _report(session, ExitCode.UNEXPECTED)
            raise UnexpectedError(None if session.run is None else session.run.directory) from error
        return _report(session, ExitCode.DONE)


def _plan(session: _Session, target: Target, opened: contextlib.ExitStack) -> Plan:
    """Decide what will be asked; a run that cannot be resumed is refused before anything is started for it."""
    resumed = session.options.resume
    directory = None if resumed is None else find_run(resumed, session.options.out)
    plan = plan_tasks(session.options, target.model_file)
    if directory is not None:
        require_unused(directory)
        then = RunRecord.read(directory)
        session.command = then.command  # the one that began it, without --resume
        require_same_plan(then, plan.task_records(), plan.sampling({}))
    if session.conclusion is not None:
        session.conclusion.require_possible(plan.task_records())
    if directory is not None:
        session.run = opened.enter_context(Run.resume(directory))
        session.earlier = session.run.earlier
    if selected := planned_selection(plan.task_records()):
        session.screen.say(f"partial: {', '.join(selected)}")
    return plan


async def _serve_and_ask(session: _Session, plan: Plan, target: Target, opened: contextlib.ExitStack) -> None:
    """Do all of it but the report; ``opened`` is closed after that."""
    evaluation: Evaluation | None = None
    # Whichever of these fails first ends the others: no waiting for a server that has no questions to answer.
    async with first_fault_only(), asyncio.TaskGroup() as group:
        loading = group.create_task(_load(session, plan, target))
        model = await target.prepare(plan, session.screen, session.timing)
        opened.callback(model.close)
        run = session.run
        if run is None:
            run = session.run = opened.enter_context(Run.create(session.options.out, f"{plan.label}-{model.label}"))
        else:
            served = await in_thread(model.describe)
            require_same_plan(RunRecord.read(run.directory), plan.task_records(), plan.sampling({}), served)
            if session.is_finished:
                await _begin(session, run, plan, model, await loading)
                session.screen.say("nothing left to ask: every question has a reply")
                return
        begun: asyncio.Future[Evaluation] = asyncio.get_running_loop().create_future()
        helping = [
            group.create_task(help_asking(number, model, begun, run, session.screen))
            for number in range(1, 1 + len(model.helpers))
        ]
        started = asyncio.Event()
        checking = group.create_task(model.check(started, loading))
        others = [*helping, group.create_task(note_gpu_loads(model, begun, run))]
        while True:
            async with contextlib.AsyncExitStack() as serving:
                try:
                    server = await serving.enter_async_context(model.serve(run.server_log, started))
                except ServerError as error:
                    if evaluation is None:
                        raise
                    trouble: ServerError | None = error  # its cause may take a while to pass, as memory to come back
                else:
                    if evaluation is None:
                        loaded = await _ready(session, model, loading, checking)
                        evaluation = await _begin(session, run, plan, model, loaded)
                    with garbage_rarely_searched():
                        trouble = await server.attend(_ask(session, model, evaluation, server.client, begun))
                    if trouble is None:  # in the time that it takes the server to stop
                        group.create_task(in_thread(prepare_page))
                # Told before the wait for GPU memory to come back.
                if trouble is None or not await goes_on_after(trouble, model, evaluation, session.screen, helping):
                    for task in others:  # they have nothing left, and one of the servers may still be starting
                        task.cancel()
                    return
            gc.collect()  # what the lost server leaves would be frozen with the rest


async def _load(session: _Session, plan: Plan, target: Target) -> Loaded:
    with session.timing.phase("load_s"):
        loaded = await in_thread(lambda: plan.load(session.screen.say, target.token_counter, target.context_limits()))
    if session.conclusion is not None:
        session.conclusion.gates.require_whole(plan.task_records(loaded.tables))
    return loaded


async def _ready(
    session: _Session, model: Prepared, loading: asyncio.Task[Loaded], checking: asyncio.Task[None]
) -> Loaded:
    """Wait for what must be there, besides a server, before the first question."""
    if not model.ours:
        return await loading
    with session.timing.phase("prove_s"):
        if not (loading.done() and checking.done()):
            session.screen.server("server ready; waiting for the data and the tokenizer check")
        loaded = await loading
        await checking
        return loaded


def _asking_options(session: _Session, model: Prepared) -> "AskingOptions":
    from bundle.evaluation import AskingOptions  # imported late: slow, and the server should start first

    options = session.options
    wanted = options.concurrency or model.concurrency
    allowed = max(1, connections_allowed() // (1 + len(model.helpers)))
    if wanted > allowed:
        session.screen.say(
            f"limiting concurrency to {allowed} (requested {wanted}): open-file limit reached (`ulimit -n`)"
        )
    return AskingOptions(
        min(wanted, allowed),
        adaptive=not model.ours,
        full_replies=options.full_replies,
        prefix_order=options.prefix_order,
    )


async def _begin(session: _Session, run: Run, plan: Plan, model: Prepared, loaded: Loaded) -> "Evaluation":
    """Record what is asked, and of which model."""
    from bundle.evaluation import Evaluation  # imported late: slow, and the server should start first

    asking = _asking_options(session, model)
    served = await in_thread(model.describe)
    day = None if model.template is None else model.template.date
    record = RunRecord.of(
        plan.task_records(loaded.tables),
        loaded.tables,
        served,
        plan.sampling(model.extra_body, day),
        context=None if loaded.context is None else loaded.context.record,
        command=session.command,
        replicas=1 + len(model.helpers) if model.helpers else None,
        **asdict(asking),
    )
    if session.conclusion is not None:
        session.conclusion.gates.require_comparable(record)
    evaluation = Evaluation(
        plan.tasks,
        loaded.questions,
        run,
        session.screen.answered,
        max_out_len=plan.max_out_len,
        asking=asking,
        servers=1 + len(model.helpers),
        fewer_examples=loaded.fewer_examples,
    )
    # A resume that asks nothing changes nothing: neither versions nor times are this session's.
    nothing_to_ask = session.earlier is not None and not evaluation.unanswered
    writing = asyncio.ensure_future(in_thread(lambda: run.begin(record, evaluation.questions, keep=nothing_to_ask)))
    await undisturbed(writing)
    writing.result()
    session.record, session.evaluation = record, evaluation
    if day is not None:
        session.screen.say(f"the chat template makes other prompts on other days: scores are those of {day}")
    if loaded.context is not None:
        for line in loaded.context.says(plan.shortened(loaded.questions), len(loaded.questions)):
            session.screen.say(line)
    return session.evaluation


async def _ask(
    session: _Session,
    model: Prepared,
    evaluation: "Evaluation",
    client: "Client",
    begun: "asyncio.Future[Evaluation]",
) -> None:
    """Ask what has no reply yet."""
    client.send_always(model.extra_body)
    async with client:
        if evaluation.unanswered and model.template is not None:
            await _prove(session, model.template, evaluation, client)
        progress = Progress(len(evaluation.unanswered), lambda: client.learned_qps, lambda: evaluation.in_flight)
        if not begun.done():
            begun.set_result(evaluation)
        with session.timing.phase("ask_s"), session.screen.asking(progress, evaluation.known):
            await evaluation.ask(client, ours=model.ours)
            if not model.ours and (count := evaluation.forget_failed_in_passing()):
                session.screen.say(
                    f"asking {plural(count, 'question')} again that failed for a reason that may have passed"
                )
                await evaluation.ask(client)
        if model.template is not None:
            _note_midnight(session, model.template.date)
        if not session.is_repeated:
            await _repeat(session, evaluation, client)
    if session.options.rpm_verbose:
        session.screen.say(f"{client.achieved_qpm:.1f} requests in the last minute")


@contextlib.contextmanager
def garbage_rarely_searched() -> Iterator[None]:
    """Modules and questions live until the end, and most of what a request leaves needs no search.

    Searching all of it as often as Python does by itself takes a tenth of the time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BEFORE_GC, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # what a lost server leaves is not kept


async def _prove(session: _Session, template: TemplateProof, evaluation: "Evaluation", client: "Client") -> None:
    """Prove that the server builds prompts as it should, and write down what came of it; else raise TemplateError."""
    session.screen.server("checking the chat template")
    with session.timing.phase("prove_s"):
        verdict = await template.prove(evaluation, client)
    if verdict is None:
        return
    session.amend(template=verdict.record)
    if verdict.error is not None:
        raise verdict.error
    if verdict.warning is not None:
        session.screen.say(f"warning: {verdict.warning}")


def _note_midnight(session: _Session, day: str | None) -> None:
    """Write down that prompts have two dates, if their chat template has one and ``day`` has passed meanwhile."""
    if day in (None, today := date.today().isoformat()) or session.record is None:
        return
    session.amend(sampling=session.record.sampling.model_copy(update={"prompt_date": f"{day} to {today}"}))
    session.screen.say(f"warning: prompts have the date of their day, from {day} to {today}: they differ in it")


async def _repeat(session: _Session, evaluation: "Evaluation", client: "Client") -> None:
    """Ask some of the questions again. If that fails, the run has not."""
    session.screen.say("repeating a sample of the questions")
    with session.timing.phase("repeat_s"):
        try:
            await evaluation.repeat(client, session.options.repeat)
        except BundleError as error:
            session.screen.say(f"warning: could not repeat them: {error.message}")


def _report(session: _Session, code: int) -> int:
    """Save and show what there is; return the exit code it deserves, which is ``code`` if that is bad."""
    session.screen.close()
    run, evaluation, screen = session.run, session.evaluation, session.screen
    if run is None or evaluation is None:
        return code
    assert session.record is not None
    review = evaluation.review
    scopes = task_scopes(session.record.tasks, evaluation.asked, review.tally.answered)
    results = evaluation.results(session.timing, {name: one.text for name, one in scopes.items()}, session.earlier)
    coverage = results.coverage
    try:
        run.flush()
        if evaluation.shortened:
            run.write_prompts(evaluation.questions)
        if results is not session.earlier:
            run.write(RESULTS, results.to_json())
    finally:
        if coverage.answered or code == ExitCode.DONE:
            shown = session.options.all_subjects
            screen.results(evaluation.tasks, results, review.health, all_subjects=shown, scopes=scopes)
    from bundle.reports.formats.submission import write_submissions  # imported late: slow, and the server starts first

    keys = (question.key for question in evaluation.questions)
    for line in write_submissions(evaluation.tasks, keys, evaluation.predictions, run):
        screen.note(line)
    if code == ExitCode.DONE and coverage.total - coverage.answered > session.options.allow_unanswered:
        code = ExitCode.UNANSWERED
    if session.conclusion is not None:
        code = conclude(session.conclusion, run, code, screen)
    if coverage.answered:
        write_page(run, coverage.total, screen)
        log_scores(session.options, run, screen)
    screen.last(run.directory)
    return code
