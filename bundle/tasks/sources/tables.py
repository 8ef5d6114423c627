"""Tables of questions, and what must hold for every one of them, whatever kind of file it came in."""

import contextlib
import hashlib
import json
import marshal
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import overload

from bundle.errors import DataError
from bundle.system.files import open_regular
from bundle.system.text import one_line, quoted
from bundle.tasks.benchmarks import Benchmark

Row = dict[str, str]
"""One question as in the file: column name -> cell."""

Pair = tuple[str, str]
"""A subject and a split: one table."""

Rows = Mapping[Pair, Sequence[Row]]
"""The rows of every table, in file order."""

Sizes = Mapping[str, tuple[int, int]]
"""How many questions a table has, and how many were published, by split and subject ("val/law")."""

# Both benchmarks are a few megabytes in all; these only keep a mistaken or hostile file from filling the memory.
MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20

REMEDY = "Fix the file, or download it again."
_SHOWN = 20
_IN_PLACE = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file", "Run `git lfs install` and `git lfs pull` there."),
    (b"<!doctype", "a web page, not the file", "Download the file itself."),
    (b"<html", "a web page, not the file", "Download the file itself."),
    (b"\x1f\x8b", "packed with gzip", "Unpack it, and give what is inside."),
)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class MissingFilesError(DataError):
    """Files of a benchmark are not where they should be."""


class PackedRows(Sequence[Row]):
    """Rows of the same columns in a fifth of their memory; each is made into a dict again when it is asked for."""

    def __init__(self, rows: Iterable[Row], columns: Sequence[str]) -> None:
        self._columns = columns
        self._cells = [marshal.dumps([str(row[column]) for column in columns]) for row in rows]

    def __len__(self) -> int:
        return len(self._cells)

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> list[Row]: ...
    def __getitem__(self, number: int | slice) -> Row | list[Row]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        return dict(zip(self._columns, marshal.loads(self._cells[number]), strict=True))  # noqa: S302 - our own


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows that were asked for, no more and no less.

    Attributes:
        origin: Where they really came from, for the screen and run.json ("hub ceval/ceval-exam @ COMMIT").
        fingerprint: See `fingerprint`: equal for equal questions, wherever they came from.
        unlike: The tables with another number of questions than was published: a file may be cut between two rows.
    """

    source: str
    origin: str
    rows: Rows
    fingerprint: str
    unlike: Sizes = field(default_factory=dict)


def fingerprint(rows: Mapping[Pair, Sequence[Row]], columns: Sequence[str]) -> str:
    """SHA-256, in hex, of what is asked: every table as one line of JSON, the tables in sorted order.

    A line is ``[subject, split, [[cell, …], …]]`` with the cells of ``columns`` in their order, UTF-8 unescaped and
    without spaces, so that anyone can make it again.
    """
    digest = hashlib.sha256()
    for subject, split in sorted(rows):
        digest.update(_encode([subject, split]).encode()[:-1] + b",[")
        for number, row in enumerate(rows[subject, split]):
            digest.update((b"," if number else b"") + _encode([row[column] for column in columns]).encode())
        digest.update(b"]]\n")
    return digest.hexdigest()


def unlike_published(rows: Rows, benchmark: Benchmark) -> Sizes:
    """The sizes that are not those published."""
    return {
        f"{split}/{subject.name}": (len(rows[subject.name, split]), count)
        for subject in benchmark.subjects
        for split, count in subject.published.items()
        if (subject.name, split) in rows and len(rows[subject.name, split]) != count
    }


def shown_sizes(sizes: Sizes) -> str:
    """As in "val/law 23/24", whatever the language; of more than three tables the first."""
    shown = [f"{one_line(name, 80)} {there}/{published}" for name, (there, published) in sizes.items()]
    return ", ".join([*shown[:3], "…"] if len(shown) > 3 else shown)


def place_columns(header: Sequence[str], benchmark: Benchmark, split: str, where: str) -> dict[str, int]:
    """Where in a file's header each of the benchmark's columns is; other columns are left out.

    Raises DataError if a required column is missing, or one is there twice.
    """
    known = {*benchmark.columns, *benchmark.optional}
    places: dict[str, int] = {}
    for place, written in enumerate(header):
        name = benchmark.renames.get(written, written)
        if name not in known:
            continue
        if name in places:
            raise DataError(f"{where}: column {quoted(name)} appears twice.", remedy=REMEDY)
        places[name] = place
    for name in benchmark.columns:
        may_be_missing = name in benchmark.optional and (name != "answer" or split in benchmark.secret_splits)
        if name not in places and not may_be_missing:
            raise DataError(f"{where}: column {name!r} is missing; the columns are {listed(header)}.", remedy=REMEDY)
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

    Raises DataError if there are none, or one has no id, an id used before, no question, no valid answer, or nothing as
    the right option. ``unit`` is what the numbers count: "line" or "row".
    """
    if not rows:
        raise DataError(f"{where} has a header and no questions.", remedy=REMEDY)
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
        elif answer and not row[answer].strip():
            problem = f"the right answer is {answer}, and that option is empty"
        if problem is not None:
            raise DataError(f"{where}, {unit} {number}: {problem}.", remedy=REMEDY)
        seen[identifier] = number
    return [row for _, row in rows]


def not_the_file(file: bytes | Path, where: str) -> DataError | None:
    """The error for what clients and browsers leave in place of a file, known by its first bytes; None for others."""
    if isinstance(file, Path):
        with contextlib.suppress(OSError), open_regular(file) as opened:
            return not_the_file(opened.read(100), where)
        return None
    head = file[:100]
    found = next((one for one in _IN_PLACE if head.lstrip().lower().startswith(one[0])), None)
    return found and DataError(f"{where} is {found[1]}.", remedy=found[2])


def check_size(size: int, what: str) -> None:
    """Refuse a file that cannot be a table of questions. Raises DataError if it is too large."""
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{what} is larger than {MAX_FILE_BYTES:,} bytes, too large for a table of questions.",
            remedy="Check that it is the benchmark's own file, or download it again.",
        )


def check_total(size: int, where: str) -> None:
    """Refuse files that, all together, cannot be a benchmark. Raises DataError if they are too large."""
    if size > MAX_TOTAL_BYTES:
        raise DataError(
            f"The files of {where} take more than the {MAX_TOTAL_BYTES:,} bytes allowed.",
            remedy="Check that it is the benchmark, or download it again.",
        )


def missing_files(
    missing: Sequence[str], total: int, where: str, there: Sequence[str], nearby: Sequence[Path] = ()
) -> MissingFilesError:
    """The error for files that are not there, with what is there instead, and where others like them are."""
    shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    if nearby:
        remedy = f"Did you mean {' or '.join(map(str, nearby[:3]))}?"
    else:
        remedy = "Give a directory or .zip in the benchmark's own layout, with all its files."
    return MissingFilesError(
        f"{missing[0]} is missing from {where}"
        + (f", and {len(missing) - 1} more of its {total} files" if len(missing) > 1 else "")
        + f"; it contains {shown or 'nothing'}.",
        remedy=remedy,
    )
