"""Gates: what a script requires of a run's scores.

A gate checks a run that has ended, and its result is one line. A score with missing replies passes no gate, whatever it
is: the missing ones may be exactly those that would have been wrong.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from bundle.errors import ExitCode, RunError, UsageError
from bundle.reports.comparison import Comparison, Row, Standing, compare, require_comparable
from bundle.reports.comparison.wording import named, p_says
from bundle.reports.texts import ENGLISH, Words
from bundle.runs.finding import OUTPUTS
from bundle.runs.health import Health
from bundle.runs.record import RunRecord
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.scope import planned_selection
from bundle.runs.task_record import TaskRecord
from bundle.system.text import did_you_mean, one_line
from bundle.tasks.scores import score_names

_TOLERANCE = 1e-9  # a mean of 52 shares may be a hair off the round number it is


class MinScore(NamedTuple):
    """A score must be at least this high."""

    name: str
    percent: float


@dataclass(frozen=True, slots=True)
class Gates:
    """All that is required of a run.

    Attributes:
        max_drop: Maximum drop in the mean over all subjects of each task, in points; None to compare only.
        max_unparsed: Maximum share of replies whose answer is none of the options, in percent; None for any.
        allow_partial: Whether scores of a part of the questions are judged.
    """

    min_scores: tuple[MinScore, ...] = ()
    baseline: RecordedRun | None = None
    max_drop: float | None = None
    max_unparsed: float | None = None
    allow_unanswered: int = 0
    allow_partial: bool = False

    def require_whole(self, planned: Sequence[TaskRecord]) -> None:
        """Refuse to judge a part of the benchmark as if it were all of it.

        A subject that is asked as a whole may be judged, whatever the others. Raises UsageError if only some of the
        questions will be asked.
        """
        if self.allow_partial or not (self.min_scores or self.max_drop is not None):
            return
        chosen = (
            planned if self.max_drop is not None else [one.model_copy(update={"subjects": None}) for one in planned]
        )
        if selected := planned_selection(chosen):
            raise UsageError(
                f"Gates judge whole benchmarks, and this run is partial: {', '.join(selected)}.",
                remedy="Ask all questions, or add --allow-partial.",
            )

    def require_scored(self, planned: Sequence[TaskRecord]) -> None:
        """Refuse gates on scores that the run will not have.

        Raises UsageError if there is one; the message suggests the nearest name.
        """
        names = expected_scores(planned)
        for one in self.min_scores:
            if one.name not in names:
                hint = "`bundle tasks TASK` lists the subjects; a group needs all its subjects to have a score."
                raise UsageError(
                    f"--min-score: this run will have no score {one.name!r}.",
                    remedy=did_you_mean(one.name, names, hint),
                )

    def require_comparable(self, run: RunRecord | Sequence[TaskRecord]) -> None:
        """Refuse a baseline that was asked something else than this run: its record, or the tasks it is planned with.

        Raises RunError if they cannot be compared; the message says why.
        """
        if self.baseline is None:
            return
        try:
            require_comparable(self.baseline.record, run)
        except RunError as error:
            raise RunError(
                f"--baseline {self.baseline.name}: {error.message}",
                remedy="Use a baseline with the same task, data and prompt.",
                details=error.details,
            ) from None


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether a gate was met.

    Attributes:
        name: What was required, in English; the same from run to run.
        line: The numbers, in the language in which the gates were checked.
    """

    name: str
    met: bool
    line: str


def parse_gates(
    min_scores: Sequence[str] = (),
    baseline: Path | None = None,
    max_drop: float | None = None,
    out: Path = OUTPUTS,
    *,
    max_unparsed: float | None = None,
    allow_unanswered: int = 0,
    allow_partial: bool = False,
) -> Gates:
    """Read ``--min-score NAME=PERCENT`` and the other options of gates.

    Raises UsageError if they cannot be used as given; RunError if there is no such baseline, or it has no reply.
    """
    if max_drop is not None and baseline is None:
        raise UsageError("--max-drop needs a run to compare with.", remedy="Name it with --baseline RUN.")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError(
            f"--max-drop {max_drop:g} is not between 0 and 100 points.", remedy="Use, for example, --max-drop 1.0."
        )
    gates = Gates(
        tuple(_min_score(value) for value in min_scores),
        None if baseline is None else read_recorded_run(baseline, out),
        max_drop,
        max_unparsed,
        allow_unanswered,
        allow_partial,
    )
    names = [one.name for one in gates.min_scores]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--min-score names {name} twice.", remedy="Name each score once.")
    if gates.baseline is not None and not gates.baseline.answered:
        raise RunError(f"--baseline {gates.baseline.name} has no answered questions.", remedy="Name a complete run.")
    return gates


def expected_scores(planned: Sequence[TaskRecord]) -> list[str]:
    """The names of the scores that will have an accuracy, unless replies are missing."""
    names = score_names(record.scored for record in planned)
    found: list[str] = []
    for record in planned:
        task = record.scored
        subjects = [one.name for one in task.subjects if record.subjects is None or one.name in record.subjects]
        asked = [(split, name) for split in task.open_splits for name in subjects]
        own = [*task.groups_within(asked), *(task.score_name(*member) for member in asked)]
        found += [names[task.name][name] for name in own]
    return found


def check_gates(gates: Gates, run: RecordedRun, words: Words = ENGLISH) -> list[GateResult]:
    """Check a run that has ended against its gates. Raises RunError if it cannot be compared with the baseline."""
    results = [_at_least(one, run, gates.allow_unanswered, words) for one in gates.min_scores]
    if gates.max_unparsed is not None:
        results.append(_parsed(gates.max_unparsed, run.health, words))
    if gates.baseline is None or (most := gates.max_drop) is None:
        return results
    if (comparison := compare_with_baseline(gates, run)) is None:
        name = f"at most {_points(most)} below the baseline"
        return [*results, GateResult(name, False, words("screen.gate_nothing_common", points=_points(most, words)))]
    return results + [_not_below(row, most, comparison, gates.allow_unanswered, words) for row in comparison.overall]


def compare_with_baseline(gates: Gates, run: RecordedRun) -> Comparison | None:
    """Compare a run that has ended with the baseline; None if there is none, or no common question is answered yet.

    Raises RunError if they cannot be compared, however complete the run is.
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
    """The exit code of a run that has ``code`` without gates: 1 if one fails, unless the run is incomplete."""
    return ExitCode.GATE_NOT_MET if code == ExitCode.DONE and not all(one.met for one in results) else code


def _min_score(value: str) -> MinScore:
    name, equals, percent = value.rpartition("=")
    try:
        number = float(percent)
    except ValueError:
        number = math.nan
    if not name or not equals or not 0 <= number <= 100:
        raise UsageError(
            f"--min-score {value} is not NAME=PERCENT with a percentage from 0 to 100.",
            remedy="Use, for example, --min-score ceval=60.",
        )
    return MinScore(name.strip(), number)


def _at_least(gate: MinScore, run: RecordedRun, allowed: int, words: Words) -> GateResult:
    required = _exact(gate.percent)
    name = f"{gate.name} is at least {required}"
    score = run.scores.get(gate.name)
    if score is None:
        return GateResult(name, False, words("screen.gate_no_score", name=gate.name, required=required))
    met = score.accuracy is not None and score.accuracy >= gate.percent - _TOLERANCE
    reached = words("screen.no_score") if score.accuracy is None else _decimals(score.accuracy, gate.percent)
    line = words("screen.gate_score", name=gate.name, reached=reached, required=required)
    return _judged(GateResult(name, met, line), run, allowed, score.n - score.answered, score.n, words)


def _judged(result: GateResult, run: RecordedRun, allowed: int, missing: int, n: int, words: Words) -> GateResult:
    """With what is to be known of a score of ``n`` questions; it is not met where more replies are missing than may."""
    if missing and run.total - run.answered > allowed:
        but = words(f"screen.gate_unanswered{'_one' if missing == 1 else ''}", missing=missing, n=n)
        return replace(result, met=False, line=words.join([result.line, but]))
    without = [words("screen.gate_without", missing=missing, n=n)] if missing else []
    return replace(result, line=words.join([result.line, *without, *_of_a_part(run, words)]))


def _parsed(most: float, health: Health, words: Words) -> GateResult:
    name = f"at most {_exact(most)} % of the replies are without an option"
    if not health.replies:
        return GateResult(name, False, words("screen.gate_no_reply"))
    counts = {"unparsed": health.unparsed, "replies": health.replies}
    share = _decimals(health.unparsed_percent, most)
    line = words("screen.gate_unparsed", share=share, most=_exact(most), **counts)
    return GateResult(name, health.unparsed_percent <= most + _TOLERANCE, line)


def _not_below(row: Row, most: float, comparison: Comparison, allowed: int, words: Words) -> GateResult:
    name = f"{one_line(row.name)} is at most {_points(most)} below the baseline"
    drop = -row.difference
    by = _decimals(abs(drop), most)
    line = words(
        "screen.gate_drop",
        name=one_line(named(row, words)),
        new=_decimals(row.new, row.base),
        moved=words(f"screen.gate_{('below' if drop > 0 else 'above') if float(by) else 'level'}", by=by),
        base=_decimals(row.base, row.new),
        run=one_line(comparison.base.name),
        most=_exact(most),
        p=p_says(row.p),
        meaning=words(_MEANINGS[row.standing]),
    )
    if comparison.only_new:
        line = words.join([line, words("screen.gate_excluded", n=comparison.only_new)])
    run = comparison.new
    met = drop <= most + _TOLERANCE
    return _judged(GateResult(name, met, line), run, allowed, run.total - run.answered, run.total, words)


def _of_a_part(run: RecordedRun, words: Words) -> list[str]:
    # Of which subjects it is, a score says by its name.
    parts = {task: words.chosen(scope, subjects=False) for task, scope in run.scopes.items()}
    several = len(set(parts.values())) > 1
    said = (words.labelled(one_line(task), part) if several else part for task, part in parts.items() if part)
    found = words.join(dict.fromkeys(said))
    return [words.labelled(words("screen.gate_partial"), found)] if found else []


def _points(number: float, words: Words = ENGLISH) -> str:
    return words("screen.point" if number == 1 else "screen.points", n=_exact(number))


_MEANINGS = {
    Standing.BETTER: "screen.significant",
    Standing.WORSE: "screen.significant",
    Standing.UNCLEAR: "screen.significance_unclear",
    Standing.CHANCE: "screen.not_significant",
}


def _exact(number: float) -> str:
    """As it was given: a rounded one could contradict whether the gate was met."""
    return f"{number:.15g}"


def _decimals(value: float, other: float) -> str:
    """With enough decimals to distinguish two different numbers."""
    for digits in range(2, 11):
        if f"{value:.{digits}f}" != f"{other:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.2f}"
