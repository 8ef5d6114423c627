"""The files of OpenCompass's ``summary/``, as its ``DefaultSummarizer`` writes them (``summarizers/default.py``)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

_HEADERS = ("dataset", "version", "metric", "mode")
_DIVIDER = f"{'-' * 128} THIS IS A DIVIDER {'-' * 128}"
_PADDING = 2  # tabulate.MIN_PADDING: what a column is wider than its header

Result = Mapping[str, Any] | None
"""The content of a subject's file in ``results/``; None where there is none."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One subject.

    Attributes:
        name: The data set's abbreviation, such as "ceval-law".
        version: The beginning of the prompt's hash, or "-".
        result: What came of it.
    """

    name: str
    version: str
    result: Result

    @property
    def accuracy(self) -> float | None:
        """Percent right; None where there is none."""
        return None if self.result is None else self.result.get("accuracy")


@dataclass(frozen=True, slots=True)
class Group:
    """What OpenCompass calls a summary group: the plain mean over its data sets, if all of them have a score."""

    name: str
    members: tuple[str, ...]


def summary_csv(datasets: Sequence[Dataset], groups: Sequence[Group], model: str) -> str:
    """The table, separated by commas."""
    return "".join(f"{','.join(row)}\n" for row in _table(datasets, groups, model))


def summary_txt(datasets: Sequence[Dataset], groups: Sequence[Group], model: str, stamp: str) -> str:
    """The table twice, aligned and separated by commas, and after it what it was made of."""
    raw = {one.name: one.result for one in datasets if one.result is not None} | dict(_group_results(datasets, groups))
    parts = {
        "tabulate": _aligned(_table(datasets, groups, model)),
        "csv": summary_csv(datasets, groups, model).removesuffix("\n"),
        "raw": "\n".join(["-" * 31, f"Model: {model}", *(f"{name}: {result}" for name, result in raw.items())]),
    }
    sections = (f"{name} format\n{'^' * 128}\n{text}\n{'$' * 128}\n" for name, text in parts.items())
    return f"{stamp}\n" + f"\n{_DIVIDER}\n\n".join(sections)


def _table(datasets: Sequence[Dataset], groups: Sequence[Group], model: str) -> list[list[str]]:
    rows = [[*_HEADERS, model]]
    for one in datasets:
        accuracy = one.accuracy
        scored = [one.version, "accuracy", "gen", f"{accuracy:.2f}"] if accuracy is not None else ["-"] * 4
        rows.append([one.name, *scored])
    for name, result in _group_results(datasets, groups):
        if "naive_average" in result:
            rows.append([name, "-", "naive_average", "gen", f"{result['naive_average']:.2f}"])
    return rows


def _group_results(datasets: Sequence[Dataset], groups: Sequence[Group]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A group of which nothing is there is not named; one of which something is missing says what."""
    known = {one.name: one.accuracy for one in datasets if one.accuracy is not None}
    for group in groups:
        values = [known[name] for name in group.members if name in known]
        if missing := [name for name in group.members if name not in known]:
            if values:
                yield group.name, {"error": f"missing metrics: {missing}"}
        else:
            yield group.name, {"naive_average": sum(values) / len(values)}


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """As tabulate's format "simple": text to the left, a column of nothing but numbers to the right."""
    columns = []
    for place, (header, *cells) in enumerate(zip(*rows, strict=True)):
        width = max(cell_len(header) + _PADDING, *map(cell_len, cells))
        numeric = place == len(_HEADERS) and "-" not in cells
        columns.append([_padded(text, width, right=numeric) for text in (header, "-" * width, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _padded(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding
