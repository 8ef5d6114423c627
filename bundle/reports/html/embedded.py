"""What is put into a page between script tags: our own scripts, the vendored ones, and data."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

_HERE = Path(__file__).parent

# ``<``, ``>`` and ``&`` could end the script or begin a comment in it, the separators once ended a line of JavaScript,
# and half a surrogate pair cannot be written in UTF-8.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")

_ENDS_ELEMENT = re.compile(r"</(?:script|style)|<!--", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Inline:
    """The content of a script or style element, and what a Content-Security-Policy calls it.

    Attributes:
        content: The text between the tags.
        source: The CSP source that allows this text and no other.
    """

    content: Markup
    source: str

    @classmethod
    def from_files(cls, *names: str) -> "Inline":
        """The files of these names, one after the other; the licence of a vendored one goes before it."""
        text = "\n".join(_text(name) for name in names)
        if _ENDS_ELEMENT.search(text):
            raise ValueError(f"{', '.join(names)} cannot stand inside an element")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return cls(Markup(text), f"'sha256-{digest}'")  # noqa: S704 - files of this package, checked above


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
