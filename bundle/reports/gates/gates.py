"""Gates: what a script asks of a run's scores before it goes on.

A gate looks at a run that is over, and its answer is one line. A score with missing replies meets no gate, whatever it
is: the missing ones may be just those that would have been wrong.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ExitCode, RunError, UsageError
from bundle.reports.comparison import (
    Comparison,
    Row,
    Standing,
    compare,
    require_comparable,
    require_comparable_tasks,
)
from bundle.reports.comparison.wording import p_says
from bundle.runs.record import RunRecord, TaskRecord
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.system.text import did_you_mean, one_line
from bundle.tasks.benchmarks import Subject
from bundle.tasks.scores import ScoredTask, score_names

_TOLERANCE = 1e-9  # a mean of 52 shares may be a hair off the round number it is


@dataclass(frozen=True, slots=True)
class MinScore:
    """A score must be at least so many percent."""

    name: str
    percent: float


@dataclass(frozen=True, slots=True)
class Gates:
    """All that is asked of a run.

    Attributes:
        min_scores: By the names of ``results.json``.
        baseline: The run it must not fall behind; None for none.
        max_drop: By at most so many points in the mean over all subjects of each task; None to compare only.
    """

    min_scores: tuple[MinScore, ...] = ()
    baseline: RecordedRun | None = None
    max_drop: float | None = None

    def require_scored(self, names: Collection[str]) -> None:
        """Refuse gates on scores that the run will not have.

        Args:
            names: What it will have, see `expected_scores`.

        Raises:
            UsageError: There is one; the nearest name is told.
        """
        for one in self.min_scores:
            if one.name not in names:
                raise UsageError(
                    f"--min-score names {one.name!r}, a score that this run will not have.",
                    remedy=did_you_mean(
                        one.name,
                        names,
                        "`bundle tasks TASK` lists the subjects; a group is scored only where all of it is asked.",
                    ),
                )

    def require_comparable(self, run: RunRecord | Sequence[TaskRecord]) -> None:
        """Refuse a baseline that was asked something else than this run.

        Args:
            run: The run's record, or the tasks of one that is planned.

        Raises:
            RunError: They cannot be compared; the message says why.
        """
        if self.baseline is None:
            return
        try:
            if isinstance(run, RunRecord):
                require_comparable(self.baseline.record, run)
            else:
                require_comparable_tasks(self.baseline.record, run)
        except RunError as error:
            raise RunError(
                f"--baseline {self.baseline.name}: {error.message}",
                remedy="Use a baseline with the same task, data and prompt.",
                details=error.details,
            ) from None


@dataclass(frozen=True, slots=True)
class GateResult:
    """What came of a gate.

    Attributes:
        name: What was asked; the same from run to run.
        met: Whether it holds.
        line: One line with the numbers, for people.
    """

    name: str
    met: bool
    line: str


def parse_gates(
    min_scores: Sequence[str], baseline: Path | None, max_drop: float | None, out: Path = Path("outputs")
) -> Gates:
    """Read the options ``--min-score NAME=PERCENT``, ``--baseline RUN`` and ``--max-drop POINTS``.

    Raises:
        UsageError: They cannot be used as given.
        RunError: There is no such baseline, or it has no reply.
    """
    if max_drop is not None and baseline is None:
        raise UsageError("--max-drop needs a run to compare with.", remedy="Name it with --baseline RUN.")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError(
            f"--max-drop {max_drop:g} is no number of points from 0 to 100.", remedy="Give one, as in --max-drop 1.0."
        )
    gates = Gates(
        tuple(_min_score(value) for value in min_scores),
        None if baseline is None else read_recorded_run(baseline, out),
        max_drop,
    )
    names = [one.name for one in gates.min_scores]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--min-score names {name} twice.", remedy="Name each score once.")
    if gates.baseline is not None and not gates.baseline.answered:
        raise RunError(
            f"--baseline {gates.baseline.name} has no answered question to compare with.",
            remedy="Name a run that was carried through.",
        )
    return gates


def expected_scores(tasks: Sequence[ScoredTask], subjects: Mapping[str, Sequence[Subject]]) -> list[str]:
    """The names of the scores that will have an accuracy, unless replies are missing.

    Args:
        tasks: The tasks.
        subjects: The subjects asked, by task name.
    """
    names = score_names(tasks)
    found: list[str] = []
    for task in tasks:
        asked = [
            (split, one.name) for split in task.splits if split not in task.secret_splits for one in subjects[task.name]
        ]
        own = [*task.groups_within(asked), *(task.score_name(*member) for member in asked)]
        found += [names[task.name][name] for name in own]
    return found


def check_gates(gates: Gates, run: RecordedRun) -> list[GateResult]:
    """Look whether a run that is over meets its gates.

    Raises:
        RunError: It cannot be compared with the baseline.
    """
    results = [_at_least(one, run) for one in gates.min_scores]
    if gates.baseline is None or gates.max_drop is None:
        return results
    comparison = compare_with_baseline(gates, run)
    if comparison is None:
        name = f"at most {_points(gates.max_drop)} below the baseline"
        return [*results, GateResult(name, False, f"{name}: no question has a reply in both")]
    return [*results, *(_not_below(row, gates.max_drop, comparison) for row in comparison.overall)]


def compare_with_baseline(gates: Gates, run: RecordedRun) -> Comparison | None:
    """A run that is over against the baseline of its gates; None for no baseline, and for no question in common yet.

    Raises:
        RunError: They cannot be compared, whatever the run still lacks.
    """
    if gates.baseline is None:
        return None
    try:
        return compare(gates.baseline, run)
    except RunError:
        gates.require_comparable(run.record)
        if run.answered < run.total:
            return None
        raise


def gated_exit_code(code: int, results: Iterable[GateResult]) -> int:
    """The exit code of a run with gates: 1 where one is not met, but what says that the run is not whole is stronger.

    Args:
        code: What it would be without: 0, or 4 for questions without a reply, or 130 for an interrupted run.
        results: What came of the gates.
    """
    return ExitCode.GATE_NOT_MET if code == ExitCode.DONE and not all(one.met for one in results) else code


def _min_score(value: str) -> MinScore:
    name, equals, percent = value.rpartition("=")
    try:
        number = float(percent)
    except ValueError:
        number = math.nan
    if not name or not equals or not 0 <= number <= 100:
        raise UsageError(
            f"--min-score {value} is not NAME=PERCENT, with a percentage from 0 to 100.",
            remedy="Write it as in --min-score ceval=60.",
        )
    return MinScore(name.strip(), number)


def _at_least(gate: MinScore, run: RecordedRun) -> GateResult:
    name = f"{gate.name} is at least {gate.percent:g}"
    score = run.scores.get(gate.name)
    if score is None:
        return GateResult(name, False, f"{gate.name} has no score: not all of it was asked; at least {gate.percent:g}")
    missing = score.n - score.answered
    reached = "no score" if score.accuracy is None else _decimals(score.accuracy, gate.percent)
    if missing:
        line = f"{gate.name} {reached}, at least {gate.percent:g}; but {missing} of {score.n} questions have no reply"
        return GateResult(name, False, line)
    met = score.accuracy is not None and score.accuracy >= gate.percent - _TOLERANCE
    return GateResult(name, met, f"{gate.name} {reached}, at least {gate.percent:g}")


def _not_below(row: Row, most: float, comparison: Comparison) -> GateResult:
    scored = one_line(row.name)
    name = f"{scored} is at most {_points(most)} below the baseline"
    drop = -row.difference
    moved = f"{abs(drop):.2f} points {'below' if drop > 0 else 'above'}" if f"{drop:.2f}" not in _ZERO else "level with"
    line = (
        f"{scored} {_decimals(row.new, row.base)} is {moved} the {_decimals(row.base, row.new)} of "
        f"{one_line(comparison.base.name)}, at most {most:g} below; {p_says(row.p)}, {_meaning(row)}"
    )
    missing = comparison.new.total - comparison.new.answered
    if missing:
        return GateResult(name, False, f"{line}; but {missing} of {comparison.new.total} questions have no reply")
    if comparison.only_new:
        left_out = comparison.only_new
        questions = (
            "1 question that the baseline has no reply to is"
            if left_out == 1
            else (f"{left_out} questions that the baseline has no reply to are")
        )
        line += f"; {questions} left out"
    return GateResult(name, drop <= most + _TOLERANCE, line)


_ZERO = ("0.00", "-0.00")


def _points(number: float) -> str:
    return f"{number:g} point{'' if number == 1 else 's'}"


def _meaning(row: Row) -> str:
    match row.standing:
        case Standing.BETTER | Standing.WORSE:
            return "more than chance"
        case Standing.UNCLEAR:
            return "not clear whether chance"
        case _:
            return "can be chance"


def _decimals(value: float, other: float) -> str:
    """With so many decimals that two numbers that differ look different."""
    for digits in range(2, 7):
        if f"{value:.{digits}f}" != f"{other:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.2f}"
