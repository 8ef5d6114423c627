"""Comparisons as JSON, for scripts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bundle.reports.comparison.comparison import Comparison, Flip
from bundle.reports.comparison.wording import verdict
from bundle.runs.recorded_run import RecordedRun


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All that is known of these comparisons with the same base: every row, every flip, unrounded."""
    return {
        "base": _run(comparisons[0].base),
        "comparisons": [_comparison(one) for one in comparisons],
    }


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
        "asked_with_other_messages": comparison.other_messages,
    }


def _flip(flip: Flip) -> dict[str, Any]:
    task, split, subject, number = flip.key
    where = {"task": task, "split": split, "subject": subject, "id": number}
    return where | {name: value for name, value in asdict(flip).items() if name != "key"}


def _run(run: RecordedRun) -> dict[str, Any]:
    return {
        "run": str(run.directory),
        "model": run.model,
        "began": run.began.isoformat(),
        "questions": run.total,
        "answered": run.answered,
    }
