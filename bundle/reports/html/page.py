"""The page itself: template, style, scripts and data in one file."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import bundle
from bundle.reports.export import Export
from bundle.reports.formats import Language
from bundle.reports.html.content import group_label, sections
from bundle.reports.html.embedded import Inline, json_for_script
from bundle.reports.html.facts import PHASES, QUANTILES, facts, settings
from bundle.reports.html.questions import CHUNK, OUTCOMES, question_data
from bundle.reports.html.texts import LANGUAGES, Texts, catalog
from bundle.runs.recorded_run import RecordedRun
from bundle.system.text import printable

_HEAD_SCRIPT: Final = ("theme.js",)
_SCRIPTS: Final = (
    ("vendor/d3.min.js",),
    ("vendor/plot.umd.min.js",),
    ("texts.js", "charts.js", "questions.js", "page.js"),
)
_STYLE: Final = ("page.css",)


def export(run: RecordedRun, language: Language | None = None) -> Export:
    """The page of a run, as a file."""
    # A lone surrogate, as a reply may hold, is not valid UTF-8.
    return Export({"report.html": render_page(run, language=language).encode("utf-8", "replace").decode()})


def render_page(run: RecordedRun, *, language: Language | None = None) -> str:
    """The page of a run. It asks the network for nothing, and nothing in it but its own scripts can run."""
    head, *scripts = (Inline.from_files(*names) for names in (_HEAD_SCRIPT, *_SCRIPTS))
    style = Inline.from_files(*_STYLE)
    questions = question_data(run)
    parts = sections(run)
    subjects = run.subjects
    data = {
        "language": language,
        "texts": catalog(),
        "sections": [part.to_json() for part in parts],
        "timing": [
            {"phase": phase, "seconds": run.timing[phase], "shown": _seconds(run.timing[phase])}
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
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            run=run,
            language=language or LANGUAGES[0],
            texts=Texts(language or LANGUAGES[0]),
            policy=_policy(head, *scripts, style=style),
            style=style,
            head=head,
            scripts=scripts,
            sections=parts,
            facts=facts(run),
            phases=PHASES,
            quantiles=list(QUANTILES),
            settings=list(settings(run.record.to_json())),
            source=run.record.data.source,
            questions=questions,
            outcomes=list(zip(OUTCOMES, questions.outcomes, strict=True)),
            made=datetime.now().astimezone(),
            version=bundle.__version__,
            data=data,
            chunks=questions.chunks,
        )
    )


def _policy(*scripts: Inline, style: Inline) -> str:
    """Nothing is loaded, nothing is sent, and of scripts and styles only these very texts are used."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(script.source for script in scripts)}",
            f"style-src {style.source}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "json_for_script": json_for_script,
        "printable": lambda value: "\n".join(map(printable, str(value).split("\n"))),
        "percent": lambda number: "–" if number is None else f"{number:.2f}",
        "point": lambda number: f"{number:.1f}",
        "count": lambda number: f"{number:,}",
        "number": _number,
        "seconds": _seconds,
    }
    environment.globals["group_label"] = group_label
    return environment


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _seconds(value: float) -> str:
    """A duration, as exact as one wants to read it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
