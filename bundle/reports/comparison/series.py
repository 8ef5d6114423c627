"""Several runs beside each other, such as those of one training run's checkpoints, each compared with the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.errors import RunError
from bundle.reports.comparison.comparison import Comparison, compare
from bundle.reports.comparison.rows import LEVEL, Row, Standing
from bundle.reports.comparison.terminal import mark, styled
from bundle.reports.comparison.wording import p_value, points
from bundle.reports.health import headline
from bundle.reports.screen.output import plain_table
from bundle.reports.texts import ENGLISH, Words
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.scoring import headlines
from bundle.runs.statistics import holm
from bundle.system.text import one_line
from bundle.tasks.scores import ScoredTask


@dataclass(slots=True)
class Entry:
    """One run of a series; all but the first three are known once it is compared.

    Attributes:
        run: The run; None if there is none.
        why: Why it has no score; "" if it has one.
        comparison: With the base, the first run of the series that answered anything.
        incomparable: Why there is none.
        changes: The means over all subjects by task and split, with p-values corrected for the number of runs (Holm).
    """

    name: str
    run: RecordedRun | None
    why: str = ""
    comparison: Comparison | None = None
    incomparable: str = ""
    changes: dict[tuple[str, str], Row] = field(default_factory=dict)


def series_of(comparisons: Sequence[Comparison]) -> list[Entry]:
    """Comparisons with the same base, beside each other; each run goes by the first of its names that no other has."""
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    kinds = [[run.model for run in runs], [run.name for run in runs], [str(run.directory) for run in runs]]
    entries = [
        Entry(next(names[place] for names in kinds if names.count(names[place]) == 1), run)
        for place, run in enumerate(runs)
    ]
    for entry, comparison in zip(entries[1:], comparisons, strict=True):
        entry.comparison = comparison
    _note_changes(entries, runs[0])
    return entries


def compare_all(entries: Sequence[Entry]) -> None:
    """Compare every run with the base."""
    base = _base(entries)
    if base is None or base.run is None:
        return
    for entry in entries:
        if entry is not base and entry.run is not None and entry.run.answered:
            try:
                entry.comparison = compare(base.run, entry.run)
            except RunError as error:
                entry.incomparable = error.message
    _note_changes(entries, base.run)


def _base(entries: Sequence[Entry]) -> Entry | None:
    return next((one for one in entries if one.run is not None and one.run.answered), None)


def _note_changes(entries: Sequence[Entry], base: RecordedRun) -> None:
    places = [(task.name, split) for task in base.tasks for split in task.open_splits]
    overall = [(one, one.comparison.overall) for one in entries if one.comparison is not None]
    compared = [(one, rows) for one, rows in overall if len(rows) == len(places)]
    for number, place in enumerate(places):
        corrected = holm([rows[number].p for _, rows in compared])
        for (entry, rows), p in zip(compared, corrected, strict=True):
            standing = rows[number].standing
            if p >= LEVEL and standing in (Standing.BETTER, Standing.WORSE):
                standing = Standing.CHANCE
            entry.changes[place] = replace(rows[number], corrected_p=p, standing=standing)


def show(console: Console, entries: Sequence[Entry], words: Words = ENGLISH) -> None:
    """Print a table for every task, and notes on the runs; on a narrow terminal groups have one of their own."""
    base = _base(entries)
    for number, task in enumerate(() if base is None or base.run is None else base.run.tasks):
        if number:
            console.print()
        overall, groups = _overall(entries, task, words), _groups(entries, task)
        tables = [_table(entries, overall + groups)]
        if console.is_terminal and tables[0].__rich_measure__(console, console.options).maximum > console.width:
            tables = [_table(entries, overall), _table(entries, groups)]
        tables[0].title = Text(one_line(task.name), style="bold")
        for place, table in enumerate(tables):
            if place:
                console.print()
            console.print(table)
    for line in _notes(entries, words):
        console.print(Text(line))


_Column = tuple[str, list[str | Text]]
"""A header, and a cell for each run."""


def _table(entries: Sequence[Entry], columns: Sequence[_Column]) -> Table:
    table = plain_table()
    table.add_column("", overflow="fold")
    for header, _ in columns:
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for number, entry in enumerate(entries):
        table.add_row(Text(one_line(entry.name)), *(cells[number] for _, cells in columns))
    return table


def _overall(entries: Sequence[Entry], task: ScoredTask, words: Words) -> list[_Column]:
    columns: list[_Column] = []
    for split, prefix in task.open_splits.items():
        columns.append((prefix, [_headline(entry, task, split) for entry in entries]))
        if len(entries) == 1:
            continue
        found = [entry.changes.get((task.name, split)) for entry in entries]
        columns += [
            (words("screen.change"), [styled(points(one.difference), one.standing) if one else "" for one in found]),
            ("p", [p_value(one.shown_p) if one else "" for one in found]),
            ("", [mark(one.standing, words) if one else "" for one in found]),
        ]
    return columns


def _groups(entries: Sequence[Entry], task: ScoredTask) -> list[_Column]:
    scores = [_scores(entry, task) for entry in entries]
    return [
        (one_line(short).replace("-", "\n"), [one.get(name, "") for one in scores])
        for name in task.groups
        if (short := task.short_name(name)) and any(name in one for one in scores)
    ]


def _headline(entry: Entry, task: ScoredTask, split: str) -> str:
    if entry.run is None:
        return ""
    found = {(one.task, one.split): one.score for one in headlines(entry.run.tasks, entry.run.scores)}
    score = found.get((task.name, split))
    shown = "–" if score is None else score.percent
    return shown + ("*" if entry.run.partial else "")


def _scores(entry: Entry, task: ScoredTask) -> dict[str, str]:
    """Scores of a task's groups, by the task's own names for them."""
    if entry.run is None or all(task.name != one.name for one in entry.run.tasks):
        return {}
    scores = entry.run.scores
    found = {own: scores[name] for own, name in entry.run.score_names(task).items() if name in scores}
    return {own: f"{one.accuracy:.2f}" for own, one in found.items() if one.accuracy is not None}


def _notes(entries: Sequence[Entry], words: Words) -> Iterator[str]:
    if (number := sum(bool(one.changes) for one in entries)) and (base := _base(entries)) is not None:
        key = "screen.against_corrected" if number > 1 else "screen.against"
        yield words(key, n=number, base=one_line(base.name))
    yield from words.parts((entry.name, entry.run.scopes) for entry in entries if entry.run is not None)
    for entry in entries:
        name = one_line(entry.name)
        if entry.why:
            yield words.labelled(name, one_line(entry.why))
        if entry.run is not None and entry.run.answered and not entry.run.health.is_ok:
            yield words.labelled(name, one_line(headline(entry.run.health, words)))
        if entry.incomparable:
            yield words.labelled(name, one_line(entry.incomparable))
