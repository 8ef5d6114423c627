"""Comparisons as one page that needs nothing else, and as JSON for scripts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bundle.reports.comparison.comparison import Comparison, Flip
from bundle.reports.comparison.rows import Row
from bundle.reports.comparison.wording import between, left_out, p_value, points, settings, verdict
from bundle.reports.formats import write_text
from bundle.reports.templates import Inline, render
from bundle.runs.recorded_run import RecordedRun

_LONGEST_TEXT = 4000


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All that is known of comparisons with the same base: every row, every flip, unrounded."""
    return {"base": _run(comparisons[0].base), "comparisons": [_comparison(one) for one in comparisons]}


def write_page(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write comparisons with the same base as a page.

    Raises:
        RunError: The file cannot be written.
    """
    write_text(path, render_page(comparisons))


def render_page(comparisons: Sequence[Comparison]) -> str:
    """The page of comparisons with the same base."""
    base = comparisons[0].base
    names = base.part_names
    return render(
        "comparison/page.html.jinja",
        style=Inline.from_files("html/page.css"),
        scripts=[Inline.from_files("html/theme.js")],
        base=base,
        comparisons=comparisons,
        labels={names[part]: subject for part, subject in base.subjects.items()},
        points=points,
        between=between,
        p_value=p_value,
        scale=_scale,
        verdict=verdict,
        left_out=left_out,
        settings=settings,
        texts=_texts,
    )


def _scale(rows: Sequence[Row]) -> float:
    """The length of a point, so that the longest interval of a table fills half of 200."""
    furthest = max((abs(end) for row in rows for end in (row.interval.low, row.interval.high)), default=1.0)
    return 95 / max(furthest, 0.01)


def _texts(comparison: Comparison, flip: Flip) -> Iterator[tuple[str, str]]:
    """The question and both replies."""
    yield "Question", _short(comparison.base.prompts[flip.key].conversation[-1]["content"])
    yield f"Base: {comparison.base.model}", _short(flip.base_reply)
    yield f"New: {comparison.new.model}", _short(flip.new_reply)


def _short(text: str) -> str:
    """Beginning and end of a long text: a question follows its examples, and often an answer its reasons."""
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
    }
