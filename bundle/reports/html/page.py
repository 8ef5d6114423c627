"""The page itself: template, style, scripts and data in one file."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bundle.reports.formats import Export, Language
from bundle.reports.html.content import group_label, sections
from bundle.reports.html.curves import by_length, pace
from bundle.reports.html.questions import CHUNK, OUTCOMES, WORST_FIRST, question_data
from bundle.reports.templates import compile_templates, render, seconds
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.same_settings import leaves

QUANTILES: Final = {"minimum": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "maximum": 1.0}
_PHASES: Final = ("start_s", "load_s", "prove_s", "ask_s", "stop_s")
_SHOWN_ELSEWHERE: Final = frozenset({"subject_names", "groups", "description"})
_NOT_SHOWN: Final = frozenset({"command"})
"""What is full of paths, for a page that is passed on."""
_PATH: Final = re.compile(r"(?<![\w:/.])~?/(?:[^/\0\n,;]+/)+(?=[^/\s])")
"""The directories of an absolute path; no part of a URL."""


def export(run: RecordedRun, language: Language | None = None) -> Export:
    """The page of a run, as a file."""
    return Export({"report.html": render_page(run, language=language)})


def prepare() -> None:
    """Do what can be done before there is a run to show: a tenth of a second or two."""
    compile_templates("html")


def render_page(run: RecordedRun, *, language: Language | None = None) -> str:
    """The page of a run, in a language; None for the browser's."""
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
        "worst_first": WORST_FIRST,
        "questions": questions.columns,
        "pace": (over_time := pace(run.predictions)),
        "by_length": (lengths := by_length(run.predictions)),
        "chunk": CHUNK,
    }
    return render(
        "html/page.html.jinja",
        data,
        language=language,
        scripts=["messages.js", "charts.js", "report_charts.js", "questions.js", "page.js"],
        plots=True,
        run=run,
        how=_how(run),
        part_places={name: places[part] for part, name in run.part_names.items() if part in places},
        sections=parts,
        group_label=group_label,
        facts=_facts(run),
        health=run.health,
        phases=_PHASES,
        over_time=over_time,
        lengths=lengths,
        quantiles=list(QUANTILES),
        settings=list(_settings(run.record.to_json())),
        source=_source(run.record.data.source),
        questions=questions,
        outcomes=sorted(zip(OUTCOMES, questions.outcomes, strict=True), key=lambda pair: WORST_FIRST.index(pair[0])),
        chunks=questions.chunks,
    )


def _how(run: RecordedRun) -> list[tuple[str, dict[str, object]] | str]:
    """How the run was made, in a few words each: keys of texts with their values, or names as they are."""
    record = run.record
    shots = sorted({task.examples for task in record.tasks})
    words: list[tuple[str, dict[str, object]] | str] = [("how.shots", {"n": "/".join(map(str, shots))})]
    words += [(f"how.{shape}", {}) for shape in dict.fromkeys(task.shape for task in record.tasks)]
    temperature = record.sampling.temperature
    words.append(("how.temperature", {"t": f"{temperature:g}"}) if temperature else ("how.greedy", {}))
    if record.engine is not None:
        words.append(f"{record.engine.name} {record.engine.version}".strip())
        words += [name if n == 1 else f"{n} × {name}" for name, n in Counter(record.engine.gpus).items()]
    return words


def _source(source: str) -> str:
    """Where the data is from; of a path its last part."""
    return ", ".join(Path(one).name or one for one in source.split(","))


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


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A run's record as titled lists of names and values, without what other parts of the page show."""
    loose = [(name, _shown(value)) for name, value in record.items() if not isinstance(value, Mapping | tuple)]
    if loose:
        yield "run", loose
    for name, value in record.items():
        if name in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            yield name, list(_lines(value))
        elif isinstance(value, tuple):
            for number, one in enumerate(value, 1):
                title = name if len(value) == 1 else f"{name} {number}"
                yield title, list(_lines(one)) if isinstance(one, Mapping) else [(name, _shown(one))]


def _lines(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shown = {name: inner for name, inner in value.items() if name not in _SHOWN_ELSEWHERE}
    return ((path, _shown(inner)) for path, inner in leaves(shown))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return _PATH.sub("…/", str(value))
