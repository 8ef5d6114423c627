"""Comparisons on a terminal: in 80 columns, the groups first."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.reports.comparison.comparison import Comparison, Flip
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.comparison.wording import between, left_out, p_value, points, settings, verdict
from bundle.reports.screen.output import plain_table
from bundle.system.text import one_line, printable

_COLUMN_WIDTH = 5
_STYLES = {Standing.BETTER: "green", Standing.WORSE: "red", Standing.UNCLEAR: "yellow", Standing.CHANCE: ""}
_MARKS = {Standing.BETTER: "better", Standing.WORSE: "worse", Standing.UNCLEAR: "unclear", Standing.CHANCE: ""}


def show(console: Console, comparison: Comparison, *, subjects: bool, flips: int) -> None:
    """Print a comparison."""
    names = comparison.base.part_names
    labels = {names[part]: subject.english for part, subject in comparison.base.subjects.items()}
    for line in _heading(comparison):
        console.print(Text(line))
    console.print()
    console.print(_table(comparison, labels, subjects=subjects))
    console.print()
    for text in _text(comparison, subjects=subjects):
        console.print(text)
    if comparison.flips and flips:
        console.print()
        console.print(_flips(comparison.flips[:flips], labels))
    if len(comparison.flips) > flips:
        rest = len(comparison.flips) - flips
        console.print(Text(f"{rest} more flips: --flips {len(comparison.flips)}, --html or --json"))


def _heading(comparison: Comparison) -> Iterator[str]:
    for label, run in (("base", comparison.base), ("new", comparison.new)):
        yield f"{label:5}{one_line(run.model)}  ({one_line(run.name)})"
        if run.partial:
            yield f"     PARTIAL: {one_line(run.partial)}"
    for line in settings(comparison):
        yield f"     {line}"


def _table(comparison: Comparison, labels: Mapping[str, str], *, subjects: bool) -> Table:
    table = plain_table(padding=(0, 0, 0, 0))
    table.add_column("", overflow="fold")  # it yields where the others leave little
    for header in ("base", "new", "change", "95 % interval", "won", "lost", "p"):
        table.add_column(header, justify="right", no_wrap=True, min_width=_COLUMN_WIDTH)
    table.add_column("", no_wrap=True)
    for row in comparison.rows:
        if row.kind == "overall":
            table.add_section()
        if row.kind != "subject":
            table.add_row(*_cells(row, row.name), style="bold" if row.kind == "overall" else None)
    table.add_section()
    for row in comparison.rows:
        if row.kind == "subject" and (subjects or row.standing is not Standing.CHANCE):
            table.add_row(*_cells(row, labels[row.name]))
    return table


def _cells(row: Row, name: str) -> tuple[str | Text, ...]:
    style = _STYLES[row.standing]
    return (
        Text(printable(name)),
        f"{row.base:.2f}",
        f"{row.new:.2f}",
        Text(points(row.difference), style=style),
        between(row),
        str(row.won),
        str(row.lost),
        p_value(row.shown_p),
        Text(_MARKS[row.standing], style=style),
    )


def _text(comparison: Comparison, *, subjects: bool) -> Iterator[Text]:
    for row in comparison.overall:
        yield Text(printable(verdict(row)), style=_STYLES[row.standing])
    of_subjects = [row for row in comparison.rows if row.kind == "subject"]
    if len(of_subjects) > 1:
        differing = sum(row.standing is not Standing.CHANCE for row in of_subjects)
        line = f"{differing} of {len(of_subjects)} subjects differ significantly (p corrected for their number)"
        yield Text(f"{line}." if subjects else f"{line}; --subjects shows all.")
    for sentence in left_out(comparison):
        yield Text(sentence)


def _flips(flips: Sequence[Flip], labels: Mapping[str, str]) -> Table:
    table = plain_table()
    table.add_column("flips", no_wrap=True)
    table.add_column("subject", overflow="fold")
    table.add_column("question", justify="right", no_wrap=True)
    for header in ("gold", "base", "new"):
        table.add_column(header, max_width=10, no_wrap=True, overflow="ellipsis")
    for flip in flips:
        answers = (Text(one_line(answer, 30) or "–") for answer in (flip.gold, flip.base, flip.new))
        table.add_row("lost" if flip.lost else "won", Text(printable(labels[flip.name])), str(flip.key.id), *answers)
    return table
