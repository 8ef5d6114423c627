"""Comparisons as one page that needs nothing else, and as JSON for scripts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundle.reports.comparison.comparison import Comparison
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.comparison.wording import between, notes, p_says, p_value, points, settings, verdict
from bundle.reports.formats import Language, write_text
from bundle.reports.html.content import group_label
from bundle.reports.templates import render
from bundle.runs.recorded_run import RecordedRun
from bundle.tasks.scores import Key

_LONGEST_TEXT = 4000


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All that is known of comparisons with the same base: every row, every flip, unrounded."""
    return {"base": _run(comparisons[0].base), "comparisons": [_comparison(one) for one in comparisons]}


def write_page(comparisons: Sequence[Comparison], path: Path, *, language: Language | None = None) -> None:
    """Write comparisons with the same base as a page. Raises RunError if the file cannot be written."""
    write_text(path, render_page(comparisons, language=language))


def render_page(comparisons: Sequence[Comparison], *, language: Language | None = None) -> str:
    """The page of comparisons with the same base, in a language; None for the browser's."""
    base = comparisons[0].base
    comparisons, by_step = _ordered(comparisons)
    return render(
        "comparison/page.html.jinja",
        _data(comparisons),
        language=language,
        styles=["board/board.css", "comparison/comparison.css"],
        scripts=["messages.js", "../comparison/flips.js"],
        base=base,
        comparisons=comparisons,
        matrices=list(_matrices(comparisons, by_step=by_step)) if len(comparisons) > 1 else [],
        labels=_labels(base),
        points=points,
        between=lambda row: between(row).replace(" to ", " … "),
        p_value=p_value,
        p_says=p_says,
        scale=_scale,
        scale_of=lambda columns: _scale(row for column in columns for row in column.rows),
        notes=notes,
        settings=settings,
        by_change=_by_change,
        differing=lambda rows: sum(row.standing is not Standing.CHANCE for row in rows),
    )


def _ordered(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], bool]:
    """The comparisons by training step if they are of one series of checkpoints, otherwise the largest gain first.

    Also whether they are in the order of steps.
    """
    steps = [one.new.training_step for one in comparisons]
    known = [step for step in steps if step is not None]
    if len(known) == len(steps) and len({series for series, _ in known}) == 1:
        return [one for _, one in sorted(zip(known, comparisons, strict=True), key=lambda pair: pair[0])], True
    return sorted(comparisons, key=lambda one: one.overall[0].difference, reverse=True), False


def _by_change(comparison: Comparison, kinds: Sequence[str]) -> list[Row]:
    """Rows of these kinds, the largest gain first; means over all subjects before all others."""
    rows = [row for row in comparison.rows if row.kind in kinds]
    return sorted(rows, key=lambda row: (row.kind != "overall", -row.difference))


@dataclass(frozen=True, slots=True)
class _Column:
    """A score in a matrix of several runs against the same base.

    Attributes:
        rows: One for every run; None where it could not be compared.
        base: The base's accuracy, in percent; None where no run was compared.
        trend: Its accuracies from step to step as the points of a line, in a box of 100 by 30; "" where the runs are
            not a series, or too few for a trend.
    """

    name: str
    rows: Sequence[Row | None]
    base: float | None
    trend: str


def _matrices(comparisons: Sequence[Comparison], *, by_step: bool) -> Iterator[list[_Column]]:
    """For every task and split the mean over all subjects, and its groups."""
    base = comparisons[0].base
    asked = {part[:2] for part in base.questions}
    splits = [(task, split) for task in base.tasks for split in task.open_splits if (task.name, split) in asked]
    if any(len(one.overall) != len(splits) for one in comparisons):
        return  # not all runs have answers of every split
    leads = _begins_series(base, comparisons[0].new)
    by_step = by_step and len(comparisons) + leads > 2
    for place, (task, split) in enumerate(splits):
        names = base.score_names(task)
        of_split = {names[group] for group, members in task.groups.items() if members[0][0] == split}
        groups = [row.name for row in comparisons[0].rows if row.kind == "group" and row.name in of_split]
        overall = [one.overall[place] for one in comparisons]
        of_runs = [{row.name: row for row in one.rows if row.kind == "group"} for one in comparisons]
        scores: dict[str, list[Row | None]] = {overall[0].name: [*overall]}
        scores |= {name: [rows.get(name) for rows in of_runs] for name in groups}
        yield [
            _Column(
                name,
                rows,
                base=next((row.base for row in rows if row is not None), None),
                trend=_trend(rows, with_base=leads) if by_step else "",
            )
            for name, rows in scores.items()
        ]


def _begins_series(base: RecordedRun, first: RecordedRun) -> bool:
    """Whether the base is an earlier checkpoint of the same training."""
    before, then = base.training_step, first.training_step
    return before is not None and then is not None and before[0] == then[0] and before[1] < then[1]


def _trend(column: Sequence[Row | None], *, with_base: bool) -> str:
    values = [None if row is None else row.new for row in column]
    if with_base:
        values.insert(0, next((row.base for row in column if row is not None), None))
    known = [(number, value) for number, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    across, up = 96 / (len(values) - 1), 26 / ((high - low) or 1)
    return " ".join(f"{2 + number * across:.1f},{28 - (value - low) * up:.1f}" for number, value in known)


def _labels(base: RecordedRun) -> dict[str, Mapping[Language, str]]:
    """What people call subjects, groups and the mean over all subjects, by score name."""
    names = base.part_names
    labels: dict[str, Mapping[Language, str]] = {
        names[part]: {"en": subject.english, "zh": subject.chinese} for part, subject in base.subjects.items()
    }
    for task in base.tasks:
        score_names = base.score_names(task)
        labels |= {score_names[group]: group_label(task.short_name(group)) for group in task.groups}
    return labels


def _scale(rows: Iterable[Row | None]) -> float:
    """The length of a point, so that the longest interval of a table fills half of 200."""
    intervals = [row.interval for row in rows if row is not None]
    furthest = max((abs(end) for one in intervals for end in (one.low, one.high)), default=1.0)
    return 95 / max(furthest, 0.01)


def _data(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The flips, and every question of theirs once."""
    base = comparisons[0].base
    parts = {part: number for number, part in enumerate(base.questions)}
    places: dict[Key, int] = {}
    questions: list[dict[str, Any]] = []
    for flip in (flip for one in comparisons for flip in one.flips):
        if flip.key not in places:
            places[flip.key] = len(questions)
            questions.append(
                {
                    "part": parts[flip.key.part],
                    "id": flip.key.id,
                    "content": base.pieces(flip.key),
                    "gold": flip.gold,
                    "answer": flip.base,
                    "reply": _short(flip.base_reply),
                }
            )
    subjects = base.subjects
    return {
        "base": base.model,
        "parts": [{"en": subjects[part].english, "zh": subjects[part].chinese} for part in parts],
        "questions": questions,
        "comparisons": [
            {
                "model": one.new.model,
                "flips": [
                    {"q": places[flip.key], "lost": flip.lost, "answer": flip.new, "reply": _short(flip.new_reply)}
                    for flip in one.flips
                ],
            }
            for one in comparisons
        ],
    }


def _short(text: str) -> str:
    """Beginning and end of a long text: often an answer follows its reasons."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:1000]} … {text[1000 - _LONGEST_TEXT :]}"


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "new": _run(comparison.new),
        "verdicts": [
            {"name": row.name, "standing": row.standing.value, "sentence": verdict(row)} for row in comparison.overall
        ],
        "rows": [asdict(row) | {"standing": row.standing.value} for row in comparison.rows],
        "flips": [
            one.key._asdict() | {name: of for name, of in asdict(one).items() if name != "key"}
            for one in comparison.flips
        ],
        "settings": [asdict(setting) for setting in comparison.settings],
        "left_out": {
            "answered_only_in_base": comparison.only_base,
            "answered_only_in_new": comparison.only_new,
            "answered_in_neither": comparison.neither,
            "not_in_common": comparison.not_common,
            "secret": comparison.secret,
        },
        "unparsed": {"base": comparison.unparsed[0], "new": comparison.unparsed[1]},
        "health": {"base": comparison.base.health.to_json(), "new": comparison.new.health.to_json()},
        "asked_with_other_messages": comparison.other_messages,
    }


def _run(run: RecordedRun) -> dict[str, Any]:
    return {
        "run": str(run.directory),
        "model": run.model,
        "began": run.began.isoformat(),
        "questions": run.total,
        "answered": run.answered,
        "partial": run.partial or None,
    }
