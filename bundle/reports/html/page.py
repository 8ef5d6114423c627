"""The page itself: template, style, scripts and data in one file."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import bundle
from bundle.errors import RunError
from bundle.reports.html.content import group_label, sections
from bundle.reports.html.embedded import Inline, json_for_script
from bundle.reports.html.facts import PHASES, QUANTILES, facts, settings
from bundle.reports.html.questions import CHUNK, OUTCOMES, question_data
from bundle.reports.html.texts import LANGUAGES, Language, Texts, catalog
from bundle.runs.recorded_run import RecordedRun
from bundle.system.text import printable

_HEAD_SCRIPT: Final = ("theme.js",)
_SCRIPTS: Final = (
    ("vendor/d3.min.js",),
    ("vendor/plot.umd.min.js",),
    ("texts.js", "charts.js", "questions.js", "page.js"),
)
_STYLE: Final = ("page.css",)


def write_page(run: RecordedRun, path: Path, *, language: Language | None = None) -> None:
    """Write the page of a run to a file.

    Args:
        run: The run.
        path: The file; it is replaced.
        language: The language it opens in; None for the browser's.

    Raises:
        RunError: The file cannot be written.
    """
    content = render_page(run, language=language).encode("utf-8", "replace")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}.", remedy="Name a file that can be with --out."
        ) from None


def render_page(run: RecordedRun, *, language: Language | None = None) -> str:
    """The page of a run. It asks the network for nothing, and nothing in it but its own scripts can run."""
    head, *scripts = (Inline.from_files(*names) for names in (_HEAD_SCRIPT, *_SCRIPTS))
    style = Inline.from_files(*_STYLE)
    questions = question_data(run)
    parts = sections(run)
    subjects = {(task.name, subject.name): subject for task in run.tasks for subject in task.subjects}
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
            {"task": task, "split": split, "en": subjects[task, name].english, "zh": subjects[task, name].chinese}
            for task, split, name in run.questions
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
            settings=list(settings(run.record)),
            source=_source(run),
            questions=questions,
            outcomes=list(zip(OUTCOMES, questions.outcomes, strict=True)),
            unknown=run.total - len(questions.columns["id"]),
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


def _source(run: RecordedRun) -> str:
    data = run.record.get("data")
    return str(data.get("source", "–")) if isinstance(data, Mapping) else "–"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _seconds(value: float) -> str:
    """A duration, as exact as one wants to read it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
