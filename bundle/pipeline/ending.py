"""What is made of a run when it is over, besides the table: its page, and what gates say of it."""

from typing import TYPE_CHECKING

from bundle.errors import BundleError, ExitCode
from bundle.pipeline.options import EvaluationOptions
from bundle.reports.screen.console import Screen
from bundle.runs.run import Run

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.reports.gates.conclusion import Conclusion


_MOST_ON_A_PAGE, _PAGE_BYTES = 200_000, 3_300
"""What a question costs while the page is made (docs/scale.md)."""


def conclusion_of(options: EvaluationOptions) -> "Conclusion | None":
    """What is made of the run when it is over; None for nothing but the table."""
    wanted = (options.baseline, options.max_drop, options.max_unparsed, options.summary, options.junit)
    if not options.min_score and all(one is None for one in wanted):
        return None
    from bundle.reports.gates.conclusion import parse_conclusion  # imported late: slow, and most runs have no gates

    return parse_conclusion(
        min_scores=options.min_score or (),
        baseline=options.baseline,
        max_drop=options.max_drop,
        max_unparsed=options.max_unparsed,
        allow_unanswered=options.allow_unanswered,
        allow_partial=options.allow_partial,
        summary=options.summary,
        junit=options.junit,
        out=options.out,
    )


def prepare_page() -> None:
    """Do what can be done for the page before there is a run to show."""
    from bundle.reports.html import prepare  # imported late: slow, and the server should start first

    prepare()


def write_page(run: Run, questions: int, screen: Screen) -> None:
    """Write the page of a run; if that fails, the run has not. Of very many questions none is written unasked."""
    if questions > _MOST_ON_A_PAGE:
        screen.note(
            f"no report of {questions:,} questions: `bundle report {run.directory.name}` writes one, and needs some "
            f"{questions * _PAGE_BYTES / 1e9:.1f} GB of memory"
        )
        return
    # imported late: slow, and the server should start first
    from bundle.reports.formats import FORMATS
    from bundle.runs.recorded_run import read_recorded_run

    page = FORMATS["html"]
    try:
        page.write(read_recorded_run(run.directory, has_ended=True), run.directory / page.name)
    except BundleError as error:
        screen.note(f"no report: {error.message}")
    else:
        screen.note(screen.words("screen.report", path=run.directory / page.name))


def log_scores(options: EvaluationOptions, run: Run, screen: Screen) -> None:
    """Log the scores of a run where that is asked for; if it fails, the run has not."""
    if not options.log:
        return
    # imported late: few runs need it
    from bundle.reports import trackers
    from bundle.runs.recorded_run import read_recorded_run

    recorded = read_recorded_run(run.directory)
    for name in options.log:
        screen.say(f"logging to {name}")
        screen.note(trackers.log(recorded, name))


def conclude(conclusion: "Conclusion", run: Run, code: int, screen: Screen) -> int:
    """Check the gates and write the files of a run that has ended with ``code``; return the exit code with gates.

    Raises BundleError if a file cannot be written, and nothing else went wrong before.
    """
    try:
        run.flush()
        return conclusion.conclude(run.directory, code, screen.note, screen.words)
    except BundleError as error:
        if code == ExitCode.DONE:
            raise
        screen.note(error.message)  # what went wrong first is what ends the run
        return code
