"""``bundle rescore``: what another answer rule makes of the stored replies."""

from dataclasses import dataclass
from pathlib import Path

from bundle.cli.options import RunArgument, option, runs_directory, with_options
from bundle.runs.finding import LATEST


@dataclass(frozen=True, slots=True)
class _Options:
    rule: str | None = option(
        None,
        "Answer rule: first_capital, first_option, all_options, labelled=LABEL or pattern=REGEX.",
        metavar="RULE",
        default="the task's",
    )
    all_subjects: bool = option(False, "Show every subject's score.", "--all-subjects")
    out: Path = runs_directory()


@with_options
def rescore(asked: _Options, run: RunArgument = LATEST) -> None:
    """Score stored replies again, under any answer rule.

    Sends no request and changes no file. Replies that were stopped early are left out; --full-replies avoids that.
    """
    # Imported late: `bundle --help` does not need them.
    from bundle.errors import RunError
    from bundle.reports.screen.tables import show_rescored
    from bundle.runs.recorded_run import read_recorded_run
    from bundle.runs.rescoring import rescore as score_again

    recorded = read_recorded_run(run, asked.out)
    again = score_again(recorded, asked.rule)
    if not again.whole:
        raise RunError(
            f"{recorded.name} has no whole replies: {again.cut} were stopped early.",
            remedy="Run again with --full-replies.",
        )
    show_rescored(recorded, again, asked.rule, all_subjects=asked.all_subjects)
