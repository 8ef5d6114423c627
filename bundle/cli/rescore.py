"""``bundle rescore``: what another answer rule makes of the stored replies."""

from typing import Annotated

import typer

from bundle.cli.options import OutOption, RunArgument
from bundle.runs.finding import LATEST, OUTPUTS


def rescore(
    run: RunArgument = LATEST,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Answer rule: first_capital, first_option, all_options, labelled=LABEL or pattern=REGEX.",
            show_default="the task's",
        ),
    ] = None,
    all_subjects: Annotated[bool, typer.Option("--all-subjects", help="Show every subject's score.")] = False,
    out: OutOption = OUTPUTS,
) -> None:
    """Score stored replies again, under any answer rule.

    Sends no request and changes no file. Replies that were stopped early are left out; --full-replies avoids that.
    """
    # Imported late: `bundle --help` does not need them.
    from bundle.errors import RunError
    from bundle.reports.screen.tables import show_rescored
    from bundle.runs.recorded_run import read_recorded_run
    from bundle.runs.rescoring import rescore as score_again

    recorded = read_recorded_run(run, out)
    again = score_again(recorded, rule)
    if not again.whole:
        raise RunError(
            f"{recorded.name} has no whole replies: {again.cut} were stopped early.",
            remedy="Run again with --full-replies.",
        )
    show_rescored(recorded, again, rule, all_subjects=all_subjects)
