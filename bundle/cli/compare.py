"""``bundle compare``: the same questions in two or more runs, side by side."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bundle.cli import _completion
from bundle.cli.options import RUN_HELP, option, runs_directory, screen_language, with_options
from bundle.reports.formats import Language

_MORE_HELP = "One or more runs to compare with it."


@dataclass(frozen=True, slots=True)
class _Options:
    subjects: bool = option(False, "Show every subject, not only those that differ.", "--subjects")
    flips: int = option(10, "List at most N questions that only one of the runs got right.", metavar="N", minimum=0)
    common: bool = option(False, "Compare the questions in common if tasks, subjects or limits differ.", "--common")
    json_file: Path | None = option(
        None, "Write the comparison as JSON; - is standard output.", "--json", metavar="FILE"
    )
    html_file: Path | None = option(None, "Write the comparison as a page.", "--html", metavar="FILE")
    lang: Language | None = screen_language()
    out: Path = runs_directory()


@with_options
def compare(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help=RUN_HELP, show_default=False, autocompletion=_completion.runs)
    ],
    new: Annotated[
        list[Path],
        typer.Argument(metavar="NEW", help=_MORE_HELP, show_default=False, autocompletion=_completion.runs),
    ],
    asked: _Options,
) -> None:
    """Compare runs question by question.

    Shows what changed, and whether it is statistically significant. The runs must have asked the same questions in the
    same way.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.errors import UsageError
    from bundle.reports.comparison import compare as lay_side_by_side
    from bundle.reports.comparison.terminal import show
    from bundle.reports.formats import STANDARD_OUTPUT, write_text
    from bundle.reports.screen.output import console
    from bundle.reports.texts import Words
    from bundle.runs.finding import find_run
    from bundle.runs.recorded_run import read_recorded_run

    directories = [find_run(path, asked.out).resolve() for path in (base, *new)]
    for number, directory in enumerate(directories):
        if directory in directories[:number]:
            raise UsageError(f"{directory} is named twice.", remedy="Name each run once.")
    first, *others = (read_recorded_run(directory, asked.out) for directory in directories)
    comparisons = [lay_side_by_side(first, other, common=asked.common) for other in others]
    if asked.json_file is not None:
        from bundle.reports.comparison.page import to_json  # imported late: slow, and rarely wanted

        # A reply may hold a lone surrogate, which is not valid UTF-8; its escape is.
        write_text(asked.json_file, json.dumps(to_json(comparisons), indent=1) + "\n")
    if asked.html_file is not None:
        from bundle.reports.comparison.page import write_page  # imported late: slow, and rarely wanted

        write_page(comparisons, asked.html_file, language=asked.lang)
    if asked.json_file == STANDARD_OUTPUT:
        return
    terminal, words = console(sys.stdout, width=200), Words(asked.lang)
    for number, comparison in enumerate(comparisons):
        if number:
            terminal.print()
        show(terminal, comparison, words, subjects=asked.subjects, flips=asked.flips)
    if others[1:] and not asked.common:  # scores of the questions in common are above
        from bundle.reports.comparison.series import series_of
        from bundle.reports.comparison.series import show as show_series

        terminal.print()
        show_series(terminal, series_of(comparisons), words)
