"""Comparisons as one page that needs nothing else, and as JSON for scripts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundle.reports.comparison.comparison import Comparison, Flip
from bundle.reports.comparison.rows import Row, Standing
from bundle.reports.comparison.wording import between, notes, p_says, p_value, points, settings, verdict
from bundle.reports.formats import Language, write_text
from bundle.reports.html.content import group_label
from bundle.reports.templates import render
from bundle.reports.texts import catalog
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
class _Line:
    """A run in a matrix; its row is None for a group that could not be compared."""

    number: int
    model: str
    run: str
    began: str
    rows: list[Row | None]


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Several runs by groups, against the same base.

    Attributes:
        columns: Score names, that of the mean over all subjects first.
        base: The base's accuracies, in percent; None where no run was compared.
        unit: The length of a point.
        trends: For each column its accuracies from step to step as the points of a line, in a box of 100 by 30; none
            where the runs are not a series, or too few for a trend.
    """

    title: str
    columns: list[str]
    base: list[float | None]
    lines: list[_Line]
    unit: float
    trends: list[str]


def _matrices(comparisons: Sequence[Comparison], *, by_step: bool) -> Iterator[_Matrix]:
    base = comparisons[0].base
    asked = {part[:2] for part in base.questions}
    splits = [(task.name, split) for task in base.tasks for split in task.open_splits if (task.name, split) in asked]
    if any(len(one.overall) != len(splits) for one in comparisons):
        return  # not all runs have answers of every split
    split_of = {
        base.score_names(task)[group]: (task.name, members[0][0])
        for task in base.tasks
        for group, members in task.groups.items()
    }
    leads = _begins_series(base, comparisons[0].new)
    steps = len(comparisons) + leads
    for place, first in enumerate(comparisons[0].overall):
        groups = [
            row.name for row in comparisons[0].rows if row.kind == "group" and split_of[row.name] == splits[place]
        ]
        lines = []
        for number, one in enumerate(comparisons):
            rows = {row.name: row for row in one.rows if row.kind == "group"}
            of_groups = [one.overall[place], *map(rows.get, groups)]
            lines.append(_Line(number, one.new.model, one.new.name, f"{one.new.began:%Y-%m-%d %H:%M}", of_groups))
        columns = list(zip(*(line.rows for line in lines), strict=True))
        known = [row for line in lines for row in line.rows if row is not None]
        yield _Matrix(
            title=first.name,
            columns=[first.name, *groups],
            base=[next((row.base for row in column if row is not None), None) for column in columns],
            lines=lines,
            unit=_scale(known),
            trends=[_trend(column, with_base=leads) for column in columns] if by_step and steps > 2 else [],
        )


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
        for group in task.groups:
            prefix = next((one for one in task.splits.values() if group.startswith(f"{one}-")), "")
            whole = group in task.splits.values()
            name = base.score_names(task)[group]
            labels[name] = catalog()["board.overall"] if whole else group_label(group.removeprefix(f"{prefix}-"))
    return labels


def _scale(rows: Sequence[Row]) -> float:
    """The length of a point, so that the longest interval of a table fills half of 200."""
    furthest = max((abs(end) for row in rows for end in (row.interval.low, row.interval.high)), default=1.0)
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
        "flips": [_flip(flip) for flip in comparison.flips],
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


def _flip(flip: Flip) -> dict[str, Any]:
    return flip.key._asdict() | {name: value for name, value in asdict(flip).items() if name != "key"}


def _run(run: RecordedRun) -> dict[str, Any]:
    return {
        "run": str(run.directory),
        "model": run.model,
        "began": run.began.isoformat(),
        "questions": run.total,
        "answered": run.answered,
        "partial": run.partial or None,
    }
