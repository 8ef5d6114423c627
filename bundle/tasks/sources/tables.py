"""Tables of questions, and what must hold for every one of them, whatever kind of file it came in."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from bundle.errors import DataError
from bundle.system.text import quoted
from bundle.tasks.benchmarks import Benchmark

Row = dict[str, str]
"""One question as in the file: column name -> cell."""

Pair = tuple[str, str]
"""A subject and a split: one table."""

REMEDY = "Correct the file, or fetch it again."
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows that were asked for, no more and no less.

    Attributes:
        source: As the user gave it.
        origin: Where they really came from, for the screen and run.json ("hub ceval/ceval-exam @ COMMIT").
        rows: (subject, split) -> rows in file order.
        fingerprint: See `fingerprint`: equal for equal questions, whatever road they came by.
    """

    source: str
    origin: str
    rows: Mapping[tuple[str, str], list[Row]]
    fingerprint: str


def fingerprint(rows: Mapping[tuple[str, str], Sequence[Row]], columns: Sequence[str]) -> str:
    """SHA-256, in hex, of what is asked: every table as one line of JSON, the tables in sorted order.

    A line is ``[subject, split, [[cell, …], …]]`` with the cells of ``columns`` in their order, UTF-8 unescaped and
    without spaces, so that anyone can make it again.
    """
    digest = hashlib.sha256()
    for subject, split in sorted(rows):
        cells = [[row[column] for column in columns] for row in rows[subject, split]]
        line = json.dumps([subject, split, cells], ensure_ascii=False, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def place_columns(header: Sequence[str], benchmark: Benchmark, split: str, where: str) -> dict[str, int]:
    """Where in a file's header each of the benchmark's columns is; columns nobody asked for are left out.

    Raises:
        DataError: A required column is missing, or one is there twice.
    """
    known = {*benchmark.columns, *benchmark.optional}
    places: dict[str, int] = {}
    for place, written in enumerate(header):
        name = benchmark.renames.get(written, written)
        if name not in known:
            continue
        if name in places:
            raise DataError(f"{where}: column {quoted(name)} is there twice.", remedy=REMEDY)
        places[name] = place
    for name in benchmark.columns:
        may_be_missing = name in benchmark.optional and (name != "answer" or split in benchmark.secret_splits)
        if name not in places and not may_be_missing:
            raise DataError(f"{where}: column {name!r} is missing; there are {listed(header)}.", remedy=REMEDY)
    return places


def listed(columns: Collection[str]) -> str:
    """The names of a file's columns, for an error; not all of very many."""
    shown = ", ".join(quoted(column) for column in islice(columns, _SHOWN))
    return shown + (f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")


def make_row(cells: Sequence[str], places: dict[str, int], benchmark: Benchmark) -> Row:
    """The benchmark's columns of one line, the missing ones with their default."""
    names = dict.fromkeys((*benchmark.columns, *benchmark.optional))
    return {name: cells[places[name]] if name in places else benchmark.optional[name] for name in names}


def check_rows(rows: Sequence[tuple[int, Row]], benchmark: Benchmark, split: str, where: str, unit: str) -> list[Row]:
    """The rows, if every one of them is a question that can be asked and scored.

    Args:
        rows: Every row with its number in the file.
        benchmark: What the rows must hold.
        split: Tells whether answers may be missing.
        where: The file, for errors.
        unit: What the numbers count: "line" or "row".

    Raises:
        DataError: There are none, or one has no id, an id used before, no question, or no valid answer.
    """
    if not rows:
        raise DataError(f"{where} holds a header and no questions.", remedy=REMEDY)
    seen: dict[str, int] = {}
    for number, row in rows:
        identifier, answer = row["id"], row["answer"]
        problem = None
        if not identifier:
            problem = "the id is empty"
        elif identifier in seen:
            problem = f"id {quoted(identifier)} was already used in {unit} {seen[identifier]}"
        elif not row["question"].strip():
            problem = "the question is empty"
        elif answer not in benchmark.answers and (answer or split not in benchmark.secret_splits):
            problem = f"the answer is {quoted(answer)}, not one of {', '.join(sorted(benchmark.answers))}"
        if problem is not None:
            raise DataError(f"{where}, {unit} {number}: {problem}.", remedy=REMEDY)
        seen[identifier] = number
    return [row for _, row in rows]
