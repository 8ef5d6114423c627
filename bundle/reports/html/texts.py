"""The page's own texts in both languages, each marked with its key so that the page can switch."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from markupsafe import Markup, escape

from bundle.reports.formats import Language
from bundle.runs.health import MEANINGS
from bundle.runs.no_reply import REMEDIES

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


@cache
def catalog() -> Mapping[str, Mapping[Language, str]]:
    """All texts by key, with ``{name}`` for values."""
    content: dict[str, dict[Language, str]] = json.loads(
        Path(__file__).with_name("texts.json").read_text(encoding="utf-8")
    )
    for fault, (says, remedy) in MEANINGS.items():
        content[f"fault.{fault}"]["en"], content[f"remedy.{fault}"]["en"] = says, remedy
    for cause, remedy in REMEDIES.items():
        content[f"cause.{cause}"]["en"] = remedy
    return content


class Texts:
    """Inserts texts into a template."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def plain(self, key: str, **values: object) -> str:
        """The text alone, for an element marked with `marks`."""
        return catalog()[key][self._language].format_map(values)

    def marks(self, key: str, **values: object) -> Markup:
        """Attributes for an element with this text as its whole content."""
        filled = json.dumps({name: str(value) for name, value in values.items()}, ensure_ascii=False)
        return Markup('data-text="{}" data-values="{}"').format(key, filled) if values else self._key("text", key)

    def text(self, key: str, **values: object) -> Markup:
        """The text in its own element."""
        return Markup("<span {}>{}</span>").format(self.marks(key, **values), self.plain(key, **values))

    def label(self, key: str) -> Markup:
        """The text as an accessible label."""
        return Markup('aria-label="{}" {}').format(self.plain(key), self._key("label", key))

    def both(self, english: str, chinese: str) -> Markup:
        """A name in both languages."""
        if english == chinese:
            return escape(english)
        shown = english if self._language == "en" else chinese
        return Markup('<span data-en="{}" data-zh="{}">{}</span>').format(english, chinese, shown)

    @staticmethod
    def _key(kind: str, key: str) -> Markup:
        return Markup('data-{}="{}"').format(kind, key)
