"""The page itself: template, style, scripts and data in one file."""

from typing import Final

from bundle.reports.export import Export
from bundle.reports.formats import Language
from bundle.reports.html.content import group_label, sections
from bundle.reports.html.facts import PHASES, QUANTILES, facts, settings
from bundle.reports.html.questions import CHUNK, OUTCOMES, question_data
from bundle.reports.html.texts import LANGUAGES, Texts, catalog
from bundle.reports.templates import Inline, render, seconds
from bundle.runs.recorded_run import RecordedRun

_SCRIPTS: Final = (
    ("theme.js",),
    ("vendor/d3.min.js",),
    ("vendor/plot.umd.min.js",),
    ("texts.js", "charts.js", "questions.js", "page.js"),
)
_POLICY: Final = ("require-trusted-types-for 'script'", "trusted-types 'none'")


def export(run: RecordedRun, language: Language | None = None) -> Export:
    """The page of a run, as a file."""
    return Export({"report.html": render_page(run, language=language)})


def render_page(run: RecordedRun, *, language: Language | None = None) -> str:
    """The page of a run.

    Args:
        run: The run.
        language: The language it opens in; None for the browser's.
    """
    questions = question_data(run)
    parts = sections(run)
    subjects = run.subjects
    data = {
        "language": language,
        "texts": catalog(),
        "sections": [part.to_json() for part in parts],
        "timing": [
            {"phase": phase, "seconds": run.timing[phase], "shown": seconds(run.timing[phase])}
            for phase in PHASES
            if phase in run.timing
        ],
        "parts": [
            {"task": part[0], "split": part[1], "en": subjects[part].english, "zh": subjects[part].chinese}
            for part in run.questions
        ],
        "outcomes": OUTCOMES,
        "questions": questions.columns,
        "chunk": CHUNK,
    }
    return render(
        "html/page.html.jinja",
        style=Inline.from_files("html/page.css"),
        scripts=[Inline.from_files(*(f"html/{name}" for name in names)) for names in _SCRIPTS],
        policy=_POLICY,
        run=run,
        language=language or LANGUAGES[0],
        texts=Texts(language or LANGUAGES[0]),
        sections=parts,
        group_label=group_label,
        facts=facts(run),
        health=run.health,
        phases=PHASES,
        quantiles=list(QUANTILES),
        settings=list(settings(run.record.to_json())),
        source=run.record.data.source,
        questions=questions,
        outcomes=list(zip(OUTCOMES, questions.outcomes, strict=True)),
        data=data,
        chunks=questions.chunks,
    )
