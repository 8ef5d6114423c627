"""The page itself: template, style, scripts and data in one file."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from bundle.reports.formats import Export, Language
from bundle.reports.html.content import group_label, sections
from bundle.reports.html.curves import Asking, by_length
from bundle.reports.html.questions import CHUNK, OUTCOMES, question_data
from bundle.reports.html.settings import as_recorded, in_short, in_words, source_of
from bundle.reports.templates import compile_templates, render, seconds
from bundle.runs.gpu_load import read_gpu_loads
from bundle.runs.recorded_run import RecordedRun

QUANTILES: Final = {"minimum": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "maximum": 1.0}
_RECENT_S: Final = 30.0
_PHASES: Final = ("start_s", "load_s", "prove_s", "ask_s", "stop_s")


def export(run: RecordedRun, language: Language | None = None) -> Export:
    return Export({"report.html": render_page(run, language=language)})


def prepare() -> None:
    """Do what can be done before there is a run to show: a tenth of a second or two."""
    compile_templates("html")


def render_page(run: RecordedRun, *, language: Language | None = None, live: bool = False) -> str:
    """The page of a run.

    Args:
        language: The one it opens in; None for the browser's.
        live: Whether the run is running, and the page is served by what provides `live_data`.
    """
    questions = question_data(run)
    parts = sections(run)
    subjects = run.subjects
    places = {part: number for number, part in enumerate(run.questions)}
    data = {
        "sections": [part.to_json() for part in parts],
        "timing": [
            {"phase": phase, "seconds": run.timing[phase], "shown": seconds(run.timing[phase])}
            for phase in _PHASES
            if phase in run.timing
        ],
        "parts": [
            {"task": part[0], "split": part[1], "en": subjects[part].english, "zh": subjects[part].chinese}
            for part in run.questions
        ],
        "outcomes": OUTCOMES,
        "questions": questions.columns,
        **_over_time(run, live=live),
        "live": {**_progress(run), "address": f"{quote(run.name)}/now.json"} if live else None,
        "by_length": by_length(run.predictions),
        "chunk": CHUNK,
    }
    return render(
        "html/page.html.jinja",
        data,
        language=language,
        scripts=["messages.js", "charts.js", "report_charts.js", "questions.js", "live.js", "page.js"],
        plots=True,
        live=live,
        run=run,
        how=in_short(run.record),
        part_places={name: places[part] for part, name in run.part_names.items() if part in places},
        sections=parts,
        group_label=group_label,
        facts=_facts(run),
        phases=_PHASES,
        quantiles=list(QUANTILES),
        settings=list(in_words(run.record)),
        recorded=list(as_recorded(run.record)),
        source=source_of(run.record),
        questions=questions,
        outcomes=list(zip(OUTCOMES, questions.outcomes, strict=True)),
    )


def live_data(run: RecordedRun) -> dict[str, Any]:
    """What the page of a running run asks for again and again."""
    running = run.is_running
    return {"running": running, **_progress(run), **_over_time(run, live=running)}


def _over_time(run: RecordedRun, *, live: bool) -> dict[str, Any]:
    asking = Asking(run.predictions, going_on=live)
    return {"pace": asking.pace(), "gpus": asking.gpus(read_gpu_loads(run.directory))}


def _progress(run: RecordedRun) -> dict[str, Any]:
    """Counts, and replies a second over the last half minute; None without any."""
    ends = [one.ended_at for one in run.predictions if one.ended_at is not None]
    recent = [end for end in ends if end > time.time() - _RECENT_S]
    scored = [one.correct for one in run.predictions if one.correct is not None]
    return {
        "total": run.total,
        "answered": run.answered,
        "failed": run.failed,
        "scored": len(scored),
        "right": sum(scored),
        "rate": len(recent) / min(_RECENT_S, max(1.0, time.time() - min(ends))) if recent else None,
    }


class Distribution(NamedTuple):
    """How many numbers, at least one, and their quantiles named in `QUANTILES`."""

    n: int
    values: Mapping[str, float]


def _facts(run: RecordedRun) -> dict[str, Any]:
    """Counts over the replies, and of tokens over all questions."""
    replies = [one for one in run.predictions if one.error is None]
    reasons = Counter(one.finish_reason for one in replies if one.finish_reason is not None)
    return {
        "latency": distribution([one.latency_s for one in replies]),
        "tokens": distribution([one.completion_tokens for one in replies if one.completion_tokens is not None]),
        "characters": distribution([len(one.reply or "") for one in replies]),
        "prompt_tokens": sum(one.prompt_tokens or 0 for one in run.predictions),
        "completion_tokens": sum(one.completion_tokens or 0 for one in run.predictions),
        "finish_reasons": dict(reasons.most_common()),
        "decided_early": sum(one.decided_early for one in replies),
        "asked_again": sum(one.attempts > 1 for one in run.predictions),
    }


def distribution(numbers: Sequence[float]) -> Distribution | None:
    """The quantiles of some numbers by nearest rank; None without numbers."""
    if not numbers:
        return None
    ranked = sorted(numbers)
    values = {name: ranked[max(0, -(-int(share * 100) * len(ranked) // 100) - 1)] for name, share in QUANTILES.items()}
    return Distribution(len(ranked), values)
