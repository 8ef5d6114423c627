"""What all pages share: templates, inline scripts and styles, and a policy that allows nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bundle.reports.formats import Language
from bundle.reports.texts import LANGUAGES, Texts, page_texts
from bundle.system.text import printable
from bundle.version import __version__

_HERE = Path(__file__).parent
_PLOT: Final = ("vendor/d3.min.js", "vendor/plot.umd.min.js")

# ``<``, ``>`` and ``&`` could end the script or begin a comment in it, the separators once ended a line of JavaScript,
# and half a surrogate pair cannot be written in UTF-8.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")

_ENDS_ELEMENT = re.compile(r"</(?:script|style)|<!--", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Inline:
    """The content of a script or style element.

    ``source`` is for a Content-Security-Policy that allows this text and no other.
    """

    content: Markup
    source: str

    @classmethod
    def from_files(cls, *names: str) -> "Inline":
        """Concatenate files of this package, given by their paths in it; a vendored one is preceded by its licence."""
        text = "\n".join(_text(name) for name in names)
        if _ENDS_ELEMENT.search(text):
            raise ValueError(f"{', '.join(names)} cannot stand inside an element")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return cls(Markup(text), f"'sha256-{digest}'")  # noqa: S704 - files of this package, checked above


def compile_templates(room: str) -> None:
    """Compile a room's templates, which takes several times as long as filling them in, ahead of `render`."""
    environment = _environment()
    for name in environment.list_templates(["jinja"]):
        if name.startswith(f"{room}/"):
            environment.get_template(name)


def render(
    template: str,
    data: Mapping[str, Any],
    *,
    language: Language | None,
    styles: Sequence[str] = (),
    scripts: Sequence[str],
    plots: bool = False,
    live: bool = False,
    **context: Any,
) -> str:
    """Render a page that runs no script but its own, and lets no text of its data become markup.

    Args:
        data: For its scripts, besides the texts in both languages.
        styles: Files besides that of all pages.
        plots: Whether they draw with Plot.
        live: Whether it asks the server it is from for new data; otherwise it asks the network for nothing.
    """
    style = Inline.from_files("html/page.css", *styles)
    apart = (("theme.js",), *((name,) for name in _PLOT if plots), ("texts.js", "switches.js", *scripts))
    inline = [Inline.from_files(*(f"html/{name}" for name in names)) for names in apart]
    directives = (
        "default-src 'none'",
        f"script-src {' '.join(script.source for script in inline)}",
        f"style-src {style.source}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
        *(["connect-src 'self'"] if live else []),
    )
    page = (
        _environment()
        .get_template(template)
        .render(
            style=style,
            head=inline[0],
            scripts=inline[1:],
            policy="; ".join(directives),
            data={**data, "language": language, "texts": page_texts()},
            t=Texts(language or LANGUAGES[0]),
            language=language or LANGUAGES[0],
            made=datetime.now().astimezone(),
            version=__version__,
            live=live,
            **context,
        )
    )
    # A lone surrogate, as a reply may hold, is not valid UTF-8.
    return page.encode("utf-8", "replace").decode()


def seconds(value: float) -> str:
    """A duration, as exact as one wants to read it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "json_for_script": json_for_script,
        "printable": lambda value: "\n".join(map(printable, str(value).split("\n"))),
        "percent": lambda number: "–" if number is None else f"{number:.2f}",
        "point": lambda number: f"{number:.1f}",
        "count": lambda number: f"{number:,}",
        "number": lambda number: f"{number:,}" if isinstance(number, int) else f"{number:,.2f}",
        "seconds": seconds,
    }
    return environment


def json_for_script(value: Any) -> Markup:
    """JSON that can stand in a ``<script type="application/json">``, whatever text is in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))  # noqa: S704 - made safe in this line


def _text(name: str) -> str:
    path = _HERE / name
    text = path.read_text(encoding="utf-8")
    if path.parent.name != "vendor":
        return text
    licence = path.with_name(f"{path.name.split('.')[0]}.LICENSE").read_text(encoding="utf-8")
    return f"/*!\n{licence}*/\n{text}"
