"""Several runs beside each other, such as those of one training run's checkpoints, each compared with the first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.errors import RunError
from bundle.reports.comparison.comparison import Comparison, compare
from bundle.reports.comparison.rows import LEVEL, Standing
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a series.

    Attributes:
        run: The run; None if there is none.
        why: Why it has no score; "" if it has one.
    """

    name: str
    run: RecordedRun | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """How the headline of one run differs from that of the first.

    Attributes:
        p: McNemar's exact p-value, with Holm's correction for the number of runs.
        standing: By ``p`` and the interval together.
    """

    points: float
    p: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class Series:
    """Runs in their order.

    Attributes:
        comparisons: With the first run that answered anything, by name.
        incomparable: Why there is no comparison, by name.
        changes: (name, task, split) -> the change.
    """

    entries: tuple[Entry, ...]
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    incomparable: dict[str, str] = field(default_factory=dict)
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)

    @property
    def base(self) -> Entry | None:
        """What the others are compared with."""
        return next((one for one in self.entries if one.run is not None and one.run.answered), None)


def series_of(comparisons: Sequence[Comparison]) -> Series:
    """Comparisons with the same base, beside each other."""
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    models = [run.model for run in runs]
    base, *others = (Entry(run.model if models.count(run.model) == 1 else run.name, run) for run in runs)
    return make_series([base, *others], {one.name: known for one, known in zip(others, comparisons, strict=True)})


def make_series(entries: Sequence[Entry], known: Mapping[str, Comparison] | None = None) -> Series:
    """Compare every run with the first one; ``known`` are comparisons that were made before, by name."""
    series = Series(tuple(entries), dict(known or {}))
    base = series.base
    if base is None or base.run is None:
        return series
    for entry in entries:
        if known is None and entry is not base and entry.run is not None and entry.run.answered:
            try:
                series.comparisons[entry.name] = compare(base.run, entry.run)
            except RunError as error:
                series.incomparable[entry.name] = error.message
    places = [(task.name, split) for task in base.run.tasks for split in task.open_splits]
    rows = {name: one.overall for name, one in series.comparisons.items() if len(one.overall) == len(places)}
    for number, place in enumerate(places):
        corrected = holm([found[number].p for found in rows.values()])
        for (name, found), p in zip(rows.items(), corrected, strict=True):
            row = found[number]
            is_significant = p < LEVEL or row.standing not in (Standing.BETTER, Standing.WORSE)
            standing = row.standing if is_significant else Standing.CHANCE
            series.changes[name, *place] = Change(row.difference, p, standing)
    return series


def show(console: Console, series: Series, words: Words = ENGLISH) -> None:
    """Print a table for every task, and notes on the runs; on a narrow terminal groups have one of their own."""
    base = series.base
    for number, task in enumerate(() if base is None or base.run is None else base.run.tasks):
        if number:
            console.print()
        overall, groups = _overall(series, task, words), _groups(series, task)
        tables = [_table(series, overall + groups)]
        if console.is_terminal and tables[0].__rich_measure__(console, console.options).maximum > console.width:
            tables = [_table(series, overall), _table(series, groups)]
        tables[0].title = Text(one_line(task.name), style="bold")
        for place, table in enumerate(tables):
            if place:
                console.print()
            console.print(table)
    for line in _notes(series, words):
        console.print(Text(line))


_Column = tuple[str, list[str | Text]]
"""A header, and a cell for each run."""


def _table(series: Series, columns: Sequence[_Column]) -> Table:
    table = plain_table()
    table.add_column("", overflow="fold")
    for header, _ in columns:
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for number, entry in enumerate(series.entries):
        table.add_row(Text(one_line(entry.name)), *(cells[number] for _, cells in columns))
    return table


def _overall(series: Series, task: ScoredTask, words: Words) -> list[_Column]:
    columns: list[_Column] = []
    for split, prefix in task.open_splits.items():
        columns.append((prefix, [_headline(entry, task, split) for entry in series.entries]))
        if len(series.entries) == 1:
            continue
        found = [series.changes.get((entry.name, task.name, split)) for entry in series.entries]
        columns += [
            (words("screen.change"), [styled(points(one.points), one.standing) if one else "" for one in found]),
            ("p", [p_value(one.p) if one else "" for one in found]),
            ("", [mark(one.standing, words) if one else "" for one in found]),
        ]
    return columns


def _groups(series: Series, task: ScoredTask) -> list[_Column]:
    prefixes = list(task.open_splits.values())
    scores = [_scores(entry, task) for entry in series.entries]
    columns: list[_Column] = []
    for name in task.groups:
        if name not in task.splits.values() and any(name in one for one in scores):
            short = next((name.removeprefix(f"{one}-") for one in prefixes if name.startswith(f"{one}-")), name)
            columns.append((one_line(short).replace("-", "\n"), [one.get(name, "") for one in scores]))
    return columns


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


def _notes(series: Series, words: Words) -> Iterator[str]:
    if series.changes and series.base is not None:
        number = len({name for name, _, _ in series.changes})
        key = "screen.against_corrected" if number > 1 else "screen.against"
        yield words(key, n=number, base=one_line(series.base.name))
    yield from words.parts((entry.name, entry.run.scopes) for entry in series.entries if entry.run is not None)
    for entry in series.entries:
        name = one_line(entry.name)
        if entry.why:
            yield words.labelled(name, one_line(entry.why))
        if entry.run is not None and entry.run.answered and not entry.run.health.is_ok:
            yield words.labelled(name, one_line(headline(entry.run.health, words)))
        if entry.name in series.incomparable:
            yield words.labelled(name, one_line(series.incomparable[entry.name]))
