"""Comparisons on a terminal: in 80 columns, the groups first."""

from collections.abc import Iterator, Mapping

from rich.cells import set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.reports.comparison.comparison import Comparison
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.comparison.wording import between, left_out, named, p_value, points, settings, verdict
from bundle.reports.screen.output import plain_table
from bundle.reports.texts import ENGLISH, Words
from bundle.system.text import one_line, printable

_COLUMN_WIDTH = 5
_NARROW, _VERY_NARROW = 78, 60
_STYLES = {Standing.BETTER: "green", Standing.WORSE: "red", Standing.UNCLEAR: "yellow", Standing.CHANCE: ""}


def show(console: Console, comparison: Comparison, words: Words = ENGLISH, *, subjects: bool, flips: int) -> None:
    labels = {
        comparison.base.part_names[part]: subject.chinese if words.language == "zh" else subject.english
        for part, subject in comparison.base.subjects.items()
    }
    for line in _heading(comparison, words):
        console.print(Text(line))
    console.print()
    table = _table(comparison, labels, words, subjects=subjects)
    if console.width < _NARROW:  # the sentence below the table has these, and names would be a letter wide
        del table.columns[4 if console.width < _VERY_NARROW else 5 : 7]
    console.print(table)
    console.print()
    for text in _text(comparison, words, subjects=subjects):
        console.print(text)
    if comparison.flips and flips:
        console.print()
        console.print(_flips(comparison, flips, labels, words))
    if rest := comparison.flips[flips:]:
        lost = sum(one.lost for one in rest)
        more = words("screen.more_flips", lost=lost, won=len(rest) - lost, all=len(comparison.flips))
        console.print(Text(more))


def _heading(comparison: Comparison, words: Words) -> Iterator[str]:
    for label, run in (("board.base", comparison.base), ("screen.new", comparison.new)):
        yield f"{set_cell_size(words(label), 5)}{one_line(run.model)}  ({one_line(run.name)})"
        if partial := words.scopes(run.scopes):
            yield f"     {words('screen.partial', what=one_line(partial))}"
    for key, name, base, new in settings(comparison):
        yield "     " + words.labelled(words(key, name=one_line(name)), f"{base} → {new}")


def _table(comparison: Comparison, labels: Mapping[str, str], words: Words, *, subjects: bool) -> Table:
    table = plain_table(padding=(0, 0, 0, 0))
    table.add_column("", overflow="fold")  # it yields where the others leave little
    for header in ("board.base", "screen.new", "screen.change", "screen.interval_long", "flip.won", "flip.lost"):
        table.add_column(words(header), justify="right", no_wrap=True, min_width=_COLUMN_WIDTH)
    table.add_column("p", justify="right", no_wrap=True, min_width=_COLUMN_WIDTH)
    table.add_column("", no_wrap=True)
    for row in comparison.rows:
        if row.kind == "overall":
            table.add_section()
        if row.kind != "subject":
            table.add_row(*_cells(row, named(row, words), words), style="bold" if row.kind == "overall" else None)
    table.add_section()
    for row in comparison.rows:
        if row.kind == "subject" and (subjects or row.standing is not Standing.CHANCE):
            table.add_row(*_cells(row, labels[row.name], words))
    return table


def styled(text: str, standing: Standing) -> Text:
    return Text(text, style=_STYLES[standing])


def mark(standing: Standing, words: Words) -> Text:
    """The standing in a word, where the difference is significant or unclear."""
    return styled("" if standing is Standing.CHANCE else words(f"standing.{standing.value}"), standing)


def _cells(row: Row, name: str, words: Words) -> tuple[str | Text, ...]:
    return (
        Text(printable(name)),
        f"{row.base:.2f}",
        f"{row.new:.2f}",
        styled(points(row.difference), row.standing),
        between(row, words),
        str(row.won),
        str(row.lost),
        p_value(row.shown_p),
        mark(row.standing, words),
    )


def _text(comparison: Comparison, words: Words, *, subjects: bool) -> Iterator[Text]:
    for row in comparison.overall:
        yield styled(printable(verdict(row, words)), row.standing)
    of_subjects = [row for row in comparison.rows if row.kind == "subject"]
    if len(of_subjects) > 1:
        differing = sum(row.standing is not Standing.CHANCE for row in of_subjects)
        line = words("screen.subjects_differ", n=differing, all=len(of_subjects))
        yield Text(line + words("sentence.end").rstrip() if subjects else line + words("screen.subjects_all"))
    for sentence in left_out(comparison, words):
        yield Text(sentence)


def _flips(comparison: Comparison, most: int, labels: Mapping[str, str], words: Words) -> Table:
    table = plain_table()
    table.expand = True  # so that the questions take what the other columns leave
    table.add_column(words("screen.flips"), no_wrap=True)
    for header in ("screen.gold", "board.base", "screen.new"):
        table.add_column(words(header), max_width=10, no_wrap=True, overflow="ellipsis")
    table.add_column(words("screen.subject"), max_width=32, no_wrap=True, overflow="ellipsis")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column(words("screen.question"), ratio=1, no_wrap=True, overflow="ellipsis")
    for flip in comparison.flips[:most]:
        answers = (Text(one_line(answer, 30) or "–") for answer in (flip.gold, flip.base, flip.new))
        what = words("flip.lost" if flip.lost else "flip.won")
        question = Text(one_line(comparison.new.question(flip.key), 200))
        table.add_row(what, *answers, Text(printable(labels[flip.name])), str(flip.key.id), question)
    return table
