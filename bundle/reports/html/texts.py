"""The page's own words, in both languages: each is marked with its key, so that the page can change its language."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from markupsafe import Markup, escape

from bundle.reports.formats import Language

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


@cache
def catalog() -> Mapping[str, Mapping[Language, str]]:
    """Every text by its key, with ``{name}`` where something is filled in."""
    content: dict[str, dict[Language, str]] = json.loads(
        Path(__file__).with_name("texts.json").read_text(encoding="utf-8")
    )
    return content


class Texts:
    """Puts texts into a template.

    Args:
        language: What the page is written in before a script of it has run.
    """

    def __init__(self, language: Language) -> None:
        self._language = language

    def plain(self, key: str, **values: object) -> str:
        """The text alone, for an attribute that `marks` names."""
        return catalog()[key][self._language].format_map(values)

    def marks(self, key: str, **values: object) -> Markup:
        """Attributes of an element whose whole content is this text."""
        told = json.dumps({name: str(value) for name, value in values.items()}, ensure_ascii=False)
        return Markup('data-text="{}" data-values="{}"').format(key, told) if values else self._key("text", key)

    def text(self, key: str, **values: object) -> Markup:
        """The text in an element of its own."""
        return Markup("<span {}>{}</span>").format(self.marks(key, **values), self.plain(key, **values))

    def label(self, key: str) -> Markup:
        """The text as what a screen reader says."""
        return Markup('aria-label="{}" {}').format(self.plain(key), self._key("label", key))

    def both(self, english: str, chinese: str) -> Markup:
        """A name that is known in both languages."""
        if english == chinese:
            return escape(english)
        shown = english if self._language == "en" else chinese
        return Markup('<span data-en="{}" data-zh="{}">{}</span>').format(english, chinese, shown)

    @staticmethod
    def _key(kind: str, key: str) -> Markup:
        return Markup('data-{}="{}"').format(kind, key)
