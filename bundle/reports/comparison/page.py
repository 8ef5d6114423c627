"""Comparisons as one page that needs nothing else: no network, no second file, no program but a browser."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import bundle
from bundle.reports.comparison.comparison import Comparison, Flip
from bundle.reports.comparison.rows import Row
from bundle.reports.comparison.wording import between, left_out, p_value, points, settings, verdict
from bundle.reports.export import write_text
from bundle.reports.html.embedded import Inline
from bundle.system.text import printable

_LONGEST_TEXT = 4000


def write_page(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write comparisons with the same base as a page.

    Raises:
        RunError: The file cannot be written.
    """
    # Half a surrogate pair, which a reply may hold, is no UTF-8.
    write_text(path, render_page(comparisons).encode("utf-8", "replace").decode())


def render_page(comparisons: Sequence[Comparison]) -> str:
    """The page of comparisons with the same base. It asks the network for nothing, and only its own script runs."""
    base = comparisons[0].base
    head, style = Inline.from_files("theme.js"), Inline.from_files("page.css", "../comparison/comparison.css")
    names = base.part_names
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            base=base,
            comparisons=comparisons,
            labels={names[part]: subject for part, subject in base.subjects.items()},
            head=head,
            style=style,
            policy=f"default-src 'none'; script-src {head.source}; style-src {style.source}; img-src data:; "
            "base-uri 'none'; form-action 'none'",
            made=datetime.now().astimezone(),
            version=bundle.__version__,
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
        "printable": lambda value: printable(str(value)),
        "lines": _lines,
        "points": points,
        "between": between,
        "p_value": p_value,
        "scale": _scale,
        "verdict": verdict,
        "left_out": left_out,
        "settings": settings,
        "texts": _texts,
    }
    return environment


def _scale(rows: Sequence[Row]) -> float:
    """What a point is long, where the longest interval of a table fills half of 200."""
    furthest = max((abs(end) for row in rows for end in (row.interval.low, row.interval.high)), default=1.0)
    return 95 / max(furthest, 0.01)


def _texts(comparison: Comparison, flip: Flip) -> Iterator[tuple[str, str]]:
    """The question and both replies."""
    yield "Question", _short(comparison.base.prompts[flip.key].conversation[-1]["content"])
    yield f"Base: {comparison.base.model}", _short(flip.base_reply)
    yield f"New: {comparison.new.model}", _short(flip.new_reply)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _short(text: str) -> str:
    """Beginning and end of a long text: a question comes after its examples, an answer often after its reasons."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:1000]} … {text[1000 - _LONGEST_TEXT :]}"
