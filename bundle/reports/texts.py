"""What pages and the terminal say in both languages; a page marks each text with its key, so that it can switch."""

import json
import os
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup, escape

from bundle.reports.formats import Language
from bundle.runs.no_reply import Cause
from bundle.runs.reply_faults import Fault
from bundle.runs.scope import SELECTIONS, Scope, in_words
from bundle.system.text import one_line, plural
from bundle.tasks.scores import ScoredTask

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")


@cache
def catalog() -> Mapping[str, Mapping[Language, str]]:
    """All texts by key, with ``{name}`` for values."""
    content: dict[str, dict[Language, str]] = json.loads(
        Path(__file__).with_name("texts.json").read_text(encoding="utf-8")
    )
    for fault in Fault:
        content[f"fault.{fault}"]["en"], content[f"remedy.{fault}"]["en"] = fault.says, fault.remedy
    for key, words in SELECTIONS.items():
        content[f"scope.{key}"]["en"] = words
    for cause in Cause:
        content[f"cause.{cause}"]["en"] = cause.remedy
    return content


def page_texts() -> Mapping[str, Mapping[Language, str]]:
    """Those of them that a page may show."""
    return {key: both for key, both in catalog().items() if not key.startswith("screen.")}


def terminal_language() -> Language:
    """Chinese under a Chinese locale, English elsewhere."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


class Words(string.Formatter):
    """The texts of a terminal, in its language; ``{n:reply|replies}`` is a number with its noun.

    ``language``: None for the locale's.
    """

    def __init__(self, language: Language | None = None) -> None:
        self.language = language or terminal_language()

    def __call__(self, key: str, **values: object) -> str:
        return self.vformat(catalog()[key][self.language], (), values)

    def join(self, parts: Iterable[str]) -> str:
        """A line of several parts."""
        return ("；" if self.language == "zh" else "; ").join(parts)

    def labelled(self, label: str, text: str) -> str:
        """As in "label: text"."""
        return f"{label}：{text}" if self.language == "zh" else f"{label}: {text}"

    def chosen(self, scope: Scope, *, subjects: bool = True) -> str:
        """How the questions were chosen, if they are a part; ``subjects``: also that only some subjects were."""
        those = {key: values for key, values in scope.selected.items() if subjects or key != "subjects"}
        chinese = self.language == "zh"
        parts = [self(f"scope.{key}", **values) for key, values in those.items()] if chinese else in_words(those)
        return ("，" if chinese else ", ").join(parts + [self("scope.sample_data")] * scope.sample_data)

    def scope(self, scope: Scope) -> str:
        """What part of a benchmark a run covers; "" for all of it."""
        if self.language == "en":
            return scope.text
        parts = [self.chosen(scope)] if scope.selected or scope.sample_data else []
        if parts:
            parts.append(self("scope.of" if scope.is_cut else "scope.asked", n=scope.asked, all=scope.available))
        if scope.answered < scope.asked:
            key = "screen.answered_of_them" if parts else "screen.coverage"
            parts.append(self(key, answered=scope.answered, total=scope.asked))
        return "，".join(parts)

    def scopes(self, scopes: Mapping[str, Scope]) -> str:
        partial = {name: self.scope(one) for name, one in scopes.items() if one.is_partial}
        if len(scopes) == 1:
            return "".join(partial.values())
        return self.join(self.labelled(name, text) for name, text in partial.items())

    def parts(self, runs: Iterable[tuple[str, Mapping[str, Scope]]]) -> Iterator[str]:
        """What the asterisks in a table of runs mean: each part that is covered, with the names of the runs that do."""
        names: dict[str, list[str]] = {}
        for name, scopes in runs:
            if part := one_line(self.scopes(scopes)):
                names.setdefault(part, []).append(one_line(name))
        comma = "、" if self.language == "zh" else ", "
        yield from (self.labelled(f"* {comma.join(those)}", part) for part, those in names.items())

    def format_field(self, value: Any, spec: str) -> str:
        """A value, numbers with their thousands set apart, and where two forms of a noun are given the one for it."""
        one, bar, several = spec.partition("|")
        if not spec and isinstance(value, int):
            spec = ","
        return plural(value, one, several) if bar else str(super().format_field(value, spec))


ENGLISH: Final = Words("en")


class Texts:
    """Inserts texts into a template."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def text(self, key: str, **values: object) -> Markup:
        """The text in its own element."""
        return Markup("<span {}>{}</span>").format(*self._marked(key, values))

    def option(self, value: str, key: str, **values: object) -> Markup:
        """The text as an option of a list to choose from."""
        return Markup('<option value="{}" {}>{}</option>').format(value, *self._marked(key, values))

    def label(self, key: str) -> Markup:
        """The text as an accessible label."""
        return Markup('aria-label="{}" data-label="{}"').format(catalog()[key][self._language], key)

    def both(self, english: str, chinese: str) -> Markup:
        """A name in both languages."""
        if english == chinese:
            return escape(english)
        shown = english if self._language == "en" else chinese
        return Markup('<span data-en="{}" data-zh="{}">{}</span>').format(english, chinese, shown)

    @staticmethod
    def description(task: ScoredTask) -> str:
        """A task's description in Chinese, if it is one of this program's; otherwise as it is."""
        known = catalog().get(f"task.{task.name}")
        return known["zh"] if known is not None and known["en"] == task.description else task.description

    def _marked(self, key: str, values: Mapping[str, object]) -> tuple[Markup, str]:
        """Attributes by which the page's script knows a text, and the text."""
        marks = Markup('data-text="{}"').format(key)
        if values:
            filled = json.dumps({name: str(value) for name, value in values.items()}, ensure_ascii=False)
            marks += Markup(' data-values="{}"').format(filled)
        return marks, catalog()[key][self._language].format_map(values)
