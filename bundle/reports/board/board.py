"""What stands on the board: for every task its runs, their scores, and their differences from a base."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from bundle.errors import RunError
from bundle.reports.comparison import Comparison, Row, compare
from bundle.reports.html.content import OVERALL, Line, Section, sections
from bundle.runs.files import PREDICTIONS, PROMPTS, RECORD, RESULTS
from bundle.runs.listing import ListedRun, State, list_run, list_runs
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.system.locks import Lock

K = TypeVar("K")
V = TypeVar("V")
_Kept = dict[K, tuple[object, V]]
"""What was made from files, each with the stamp they had."""


@dataclass(frozen=True, slots=True)
class BoardRun:
    """A run in one of the tables.

    Attributes:
        comparison: With the table's base; None for the base itself, and where they cannot be compared.
        changes: Its differences from the base, by column.
        incomparable: Why there are none; None where that goes without saying.
    """

    listed: ListedRun
    run: RecordedRun
    section: Section
    comparison: Comparison | None = None
    changes: Mapping[str, Row] = field(default_factory=dict)
    incomparable: str | None = None

    @property
    def asked(self) -> Mapping[str, Any]:
        """What its task asked and how; see `TaskRecord`."""
        return next(task.asked for task in self.run.record.tasks if task.name == self.section.task.name)

    @property
    def lines(self) -> dict[str, Line]:
        """Its scores by column."""
        return {line.group: line for line in (self.section.overall, *self.section.groups)}


@dataclass(frozen=True, slots=True)
class Table:
    """The runs of one task and split, newest first.

    ``base`` is the run that the others are compared with; None for none.
    """

    base: BoardRun | None
    runs: tuple[BoardRun, ...]

    @property
    def section(self) -> Section:
        """The task and split, as its newest run has them."""
        return self.runs[0].section

    @property
    def comparisons(self) -> list[Comparison]:
        """Those of its runs with the base, as far as they can be compared."""
        return [one.comparison for one in self.runs if one.comparison is not None]

    @property
    def columns(self) -> list[Line]:
        """A line for each column, of whichever run has it."""
        return list({name: line for one in reversed(self.runs) for name, line in one.lines.items()}.values())


@dataclass(frozen=True, slots=True)
class Board:
    """All runs in a directory.

    Attributes:
        tables: One for each task and split, that with the newest run first.
        starting: Runs that have not asked anything yet.
    """

    directory: Path
    tables: tuple[Table, ...]
    starting: tuple[ListedRun, ...]
    never_asked: tuple[ListedRun, ...]
    damaged: tuple[ListedRun, ...]


class Reader:
    """Reads a board again and again, and of it only what has changed.

    ``base`` is the run that the others are compared with; None for the oldest whole run of each task, of
    those that asked what the newest one did.
    """

    def __init__(self, directory: Path, base: Path | None = None) -> None:
        self._directory = directory
        self._base = None if base is None else base.resolve()
        self._runs: _Kept[Path, tuple[RecordedRun, list[Section]]] = {}
        self._listed: _Kept[Path, ListedRun] = {}
        self._comparisons: _Kept[tuple[Path, Path], Comparison | RunError] = {}

    def read(self) -> Board:
        """The board as it is now. Raises RunError if the directory cannot be read."""
        listed = list_runs(self._directory, self._look)
        damaged = [one for one in listed if one.state is State.DAMAGED]
        found: dict[tuple[str, str], list[BoardRun]] = {}
        for one in listed:
            if one.model is None:
                continue
            try:
                run, parts = self._read(one.directory)
            except RunError as error:
                damaged.append(replace(one, state=State.DAMAGED, fault=error.message))
                continue
            for part in parts:
                found.setdefault((part.task.name, part.split), []).append(BoardRun(one, run, part))
        return Board(
            directory=self._directory,
            tables=tuple(self._table(runs) for runs in found.values()),
            starting=tuple(one for one in listed if one.state is State.RUNNING and one.model is None),
            never_asked=tuple(one for one in listed if one.state is State.NEVER_ASKED),
            damaged=tuple(damaged),
        )

    def _look(self, directory: Path) -> ListedRun:
        stamp = _stamp(directory), Lock(directory).is_held()
        return _kept(self._listed, directory, stamp, lambda: list_run(directory, lambda path: self._read(path)[0]))

    def _read(self, directory: Path) -> tuple[RecordedRun, list[Section]]:
        def read() -> tuple[RecordedRun, list[Section]]:
            run = read_recorded_run(directory)
            return run, sections(run)

        return _kept(self._runs, directory, _stamp(directory), read)

    def _table(self, runs: Sequence[BoardRun]) -> Table:
        base = next((one for one in runs if one.run.directory.resolve() == self._base), None)
        if base is None:
            done = [one for one in runs if one.listed.state is State.DONE]
            # A run of a few questions is not a fair base for whole ones, nor one of other questions or another prompt.
            whole = [one for one in done if not one.run.partial]
            same = [one for one in whole if one.asked == whole[0].asked]
            base = next(reversed(same or done), None)
        if base is None or base.section.secret:
            return Table(None, tuple(runs))
        return Table(base, tuple(one if one is base else self._compared(base, one) for one in runs))

    def _compared(self, base: BoardRun, one: BoardRun) -> BoardRun:
        if not one.run.answered:
            return one
        directories = base.run.directory, one.run.directory
        stamp = tuple(map(_stamp, directories))
        comparison = _kept(self._comparisons, directories, stamp, lambda: _compare(base.run, one.run))
        if isinstance(comparison, RunError):
            return replace(one, incomparable=comparison.message)
        _, (_, parts) = self._runs[base.run.directory]  # as it was read for this board, whatever has become of it since
        public = [part for part in parts if not part.secret]
        return replace(one, comparison=comparison, changes=_changes(base, public, comparison))


def _compare(base: RecordedRun, new: RecordedRun) -> Comparison | RunError:
    try:
        return compare(base, new)
    except RunError as error:
        return error


def _changes(base: BoardRun, parts: Sequence[Section], comparison: Comparison) -> dict[str, Row]:
    """The rows of a comparison for the base's task and split, by column."""
    columns = {line.name: group for group, line in base.lines.items() if group != OVERALL}
    rows = {columns[row.name]: row for row in comparison.rows if row.name in columns}
    # A mean over some of the subjects has no name of its own; there is one for every split that was compared.
    if len(parts) == len(comparison.overall):
        rows[OVERALL] = comparison.overall[parts.index(base.section)]
    return rows


def _kept(kept: _Kept[K, V], key: K, stamp: object, make: Callable[[], V]) -> V:
    """What was made when the stamp was the same, or else is made now."""
    if key not in kept or kept[key][0] != stamp:
        kept[key] = stamp, make()
    return kept[key][1]


def _stamp(directory: Path) -> object:
    """Changes when a run's files do."""
    stamps: list[tuple[int, int] | None] = []
    for name in (RECORD, PROMPTS, PREDICTIONS, RESULTS):
        try:
            found = (directory / name).stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_size))
    return stamps
