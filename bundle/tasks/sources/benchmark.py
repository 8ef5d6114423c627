"""What a benchmark's files look like, and what comes of reading them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = dict[str, str]
"""One question as in the file: column name -> cell."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where a benchmark's files lie and what they must hold.

    Attributes:
        name: As in score names ("ceval").
        hub: The data set on the hub ("ceval/ceval-exam").
        modelscope: The data set on ModelScope ("opencompass/ceval-exam").
        archive: The .zip with the CSV files, as it is called in both places ("ceval-exam.zip").
        splits: ("dev", "val", "test").
        file_name: Template of a CSV file's name in a directory or .zip ("{split}/{subject}_{split}.csv").
        columns: The required columns, by the names they have in a `Row`. Must name id, question and answer.
        renames: Name in the file -> name in a `Row`, where they differ.
        optional: Columns that may be missing, and the cell they then have. A missing ``answer`` is an error all the
            same where the split's answers are no secret.
        answers: What an answer may be ("A", "B", "C", "D").
        secret_splits: Splits published without answers; there a cell may be empty as well.
    """

    name: str
    hub: str
    modelscope: str
    archive: str
    splits: tuple[str, ...]
    file_name: str
    columns: tuple[str, ...]
    renames: Mapping[str, str]
    optional: Mapping[str, str]
    answers: frozenset[str]
    secret_splits: frozenset[str]

    def file_names(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The CSV file of every pair of subject and split."""
        return {(subject, split): self.file_name.format(subject=subject, split=split) for subject, split in wanted}


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
