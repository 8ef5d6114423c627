"""Questions of the user's own: the rows of a CSV file, or of a JSONL file with one object a line."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import DataError
from bundle.system.files import read_regular
from bundle.system.text import did_you_mean, is_unicode, one_line, quoted
from bundle.tasks.answers import AnswerRule
from bundle.tasks.sources.csv_files import MAX_ROWS, decode, read_records
from bundle.tasks.sources.tables import MAX_FILE_BYTES, Row, Tables, fingerprint, listed

QUESTIONS = "questions"
"""The split of the rows asked."""
EXAMPLES = "examples"
"""The split of the rows shown as examples."""

_REMEDY = "Correct the file, or the [rows] of the task file."


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Where the rows are and what they must hold.

    Attributes:
        name: The task's name.
        file: The questions, ``.csv`` or ``.jsonl``.
        examples_file: The same for the examples; None where none are shown.
        columns: What the prompt and the answer need, by the names they have there.
        renames: Name there -> name in the file, where they differ.
        subject: The file's column that divides the rows into subjects; None for a single subject, which is named after
            the file.
        rule: Finds the answers, which must be some that it can find.
    """

    name: str
    file: Path
    examples_file: Path | None
    columns: tuple[str, ...]
    renames: Mapping[str, str]
    subject: str | None
    rule: AnswerRule

    def subjects(self) -> list[str]:
        """The names of the subjects, in the order they come in the file.

        Raises:
            DataError: As `load`.
        """
        return list(self._read(self.file))

    def load(self, source: str, wanted: Sequence[tuple[str, str]]) -> Tables:
        """The wanted tables.

        Args:
            source: The path of the questions: `file`, or another of the same make.
            wanted: Pairs of subject and split.

        Raises:
            DataError: A file is missing or malformed, with its name and line, or has no rows of a subject.
        """
        path = path_of(source)
        files = {QUESTIONS: path, EXAMPLES: self.examples_file}
        read = {split: self._read(file) for split, file in files.items() if file is not None}
        if path != self.file and (strange := read[QUESTIONS].keys() - set(self.subjects())):
            raise DataError(
                f"{path} has rows of the subject {quoted(min(strange))}, and {self.file} has none.", remedy=_REMEDY
            )
        rows: dict[tuple[str, str], list[Row]] = {}
        for subject, split in wanted:
            if subject not in read[split]:
                raise DataError(f"{files[split]} has no rows of the subject {quoted(subject)}.", remedy=_REMEDY)
            rows[subject, split] = read[split][subject]
        return Tables(source, f"file {path}", rows, fingerprint(rows, self.columns))

    def _read(self, path: Path) -> dict[str, list[Row]]:
        """The rows of a file, by subject."""
        records = _read_file(path)
        columns = {name: self.renames.get(name, name) for name in self.columns}
        needed = [*columns.values(), *([self.subject] if self.subject else [])]
        rows: dict[str, list[Row]] = {}
        for line, record in records:
            where = f"{path}, line {line}"
            for column in needed:
                if column not in record:
                    raise self._no_column(column, record, where)
            row = {name: record[column] for name, column in columns.items()}
            subject = record[self.subject] if self.subject else self.file.stem
            if problem := self._problem(row, subject):
                raise DataError(f"{where}: {problem}.", remedy=_REMEDY)
            rows.setdefault(subject, []).append(row)
        return rows

    def _no_column(self, column: str, record: Row, where: str) -> DataError:
        return DataError(
            f"{self.name} needs the column {column!r}, and {where} has none of this name with text in it; "
            f"there are {listed(record)}.",
            remedy=did_you_mean(column, record, "Correct the file, or the task file's prompt or [rows]."),
        )

    def _problem(self, row: Row, subject: str) -> str | None:
        if not subject.strip():
            return "the subject is empty"
        if not any(cell.strip() for name, cell in row.items() if name != "answer"):
            return "the question is empty"
        if not row["answer"]:
            return "the answer is empty"
        if not self.rule.can_find(row["answer"]):
            return f"the answer is {quoted(row['answer'])}, which the rule {self.rule.name} finds in no reply"
        return None


def path_of(written: str) -> Path:
    """The path that a user or a task file means; ``~`` is the home directory.

    Raises:
        DataError: There is no such home directory.
    """
    try:
        return Path(written).expanduser()
    except RuntimeError:
        raise DataError(
            f"{quoted(written)} cannot be used as a path: there is no such home directory.", remedy="Write it out."
        ) from None


def _read_file(path: Path) -> list[tuple[int, Row]]:
    """The line and the cells of every row."""
    where = str(path)
    if not is_unicode(where):
        raise DataError(f"The path {where!r} holds bytes that are no text.", remedy="Rename the file.")
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise DataError(f"{where} is neither a .csv nor a .jsonl.", remedy="Name a file of one of these two kinds.")
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise DataError(
            f"There is no file {where}.", remedy="Check the path; it begins where the task file is."
        ) from None
    except OSError as error:
        raise DataError(
            f"{where} cannot be read: {error.strerror or error}.", remedy="Check the path and the rights of the file."
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"{where} is larger than {MAX_FILE_BYTES:,} bytes and can hardly be a table of questions.",
            remedy="Check the path, or divide the questions into several tasks.",
        )
    rows = _csv_rows(data, where) if path.suffix.lower() == ".csv" else _json_rows(data, where)
    if not rows:
        raise DataError(f"{where} holds no rows.", remedy=_REMEDY)
    return rows


def _csv_rows(data: bytes, where: str) -> list[tuple[int, Row]]:
    header, records = read_records(data, where)
    twice = [column for column, count in Counter(header).items() if column and count > 1]
    if twice:
        raise DataError(f"{where}: column {quoted(twice[0])} is there twice.", remedy=_REMEDY)
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in records]


def _json_rows(data: bytes, where: str) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(decode(data, where).split("\n"), 1):
        if line.strip():
            if len(rows) == MAX_ROWS:
                raise DataError(f"{where} has more than {MAX_ROWS:,} rows.", remedy=_REMEDY)
            rows.append((number, _json_row(line, f"{where}, line {number}")))
    return rows


def _json_row(line: str, where: str) -> Row:
    """The keys of an object whose values are text or numbers; a number is the text it is written as."""
    try:
        content = json.loads(line, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_object)
        json.dumps(content, ensure_ascii=False).encode()  # fails where half a character is escaped
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({one_line(str(error))}).", remedy=_REMEDY) from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: not a JSON object.", remedy=_REMEDY)
    return {key: value for key, value in content.items() if isinstance(value, str)}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return content
