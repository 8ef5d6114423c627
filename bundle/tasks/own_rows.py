"""The user's own questions: the rows of a CSV file, or of a JSONL file with one object a line."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from bundle.config.task_files import RowsFile
from bundle.errors import DataError
from bundle.system.files import read_regular, user_path
from bundle.system.text import did_you_mean, is_unicode, one_line, quoted
from bundle.tasks.answers import AnswerRule, Pattern, for_several_answers
from bundle.tasks.options import (
    DIGITS,
    LETTERS,
    Gold,
    Number,
    Options,
    in_order,
    numbered,
    options_in,
    options_in_cell,
    read_gold,
)
from bundle.tasks.sources.csv_files import MAX_ROWS, decode, read_records
from bundle.tasks.sources.tables import MAX_FILE_BYTES, Pair, Row, Tables, fingerprint, listed

QUESTIONS = "questions"
"""The split of the rows asked."""
EXAMPLES = "examples"
"""The split of the rows shown as examples."""

Record = Mapping[str, Any]
"""A row as in the file: text, or in JSONL a list or an object too."""


class _Asked(NamedTuple):
    """A row as it is asked and scored, and where it stands."""

    where: str
    subject: str
    row: Row
    options: Options
    gold: Gold


_REMEDY = "Fix the file, or the [rows] of the task file."
_OF_A_LIST = "A .jsonl has one object a line; `jq -c '.[]' FILE >NEW.jsonl` makes it of a list."
_SEVERAL = 2
_LISTS = ("choices", "options", "选项")
"""Columns of a CSV file whose cells may be lists."""
_CAPITALS = {"first_capital": "ABCDEFGH", "all_options": "ABCD"}
"""What answers may be where neither the file nor the rule says it."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Where the rows are and what they must hold.

    Attributes:
        file: The questions, ``.csv`` or ``.jsonl``; without a column for the subject they have one, named after it.
        columns: What a prompt needs, by the names it has there.
        given: What the task file says of them.
    """

    name: str
    file: Path
    examples_file: Path | None
    columns: tuple[str, ...]
    given: RowsFile
    rule: AnswerRule

    @property
    def option_columns(self) -> tuple[str, ...]:
        """The columns that are options, each named by its letter."""
        letters = tuple(column for column in self.columns if len(column) == 1 and column in LETTERS)
        return letters if len(letters) > 1 else ()

    def with_rule_for_answers(self) -> Self:
        """The same, with a rule that can find every option shown, and several where answers are several.

        Raises DataError as `load` does.
        """
        read = self._read(self.file)
        answers = [one.gold.text for one in read if one.gold.is_options]
        letters = "".join(answers)
        shown = in_order({letter for one in read for letter in one.options}, LETTERS + DIGITS)
        options = shown or in_order(letters + "ABCD", LETTERS)
        rule = self.rule
        if not set(shown) <= set(getattr(rule, "options", "") or shown):
            rule = replace(rule, options=shown)  # type: ignore[type-var]  # it is a dataclass with options
        if any(len(answer) > 1 for answer in answers):
            rule = for_several_answers(rule, options)
        elif isinstance(rule, Pattern) and not rule.options and letters:
            rule = replace(rule, options=options)
        return replace(self, rule=rule)

    def subjects(self) -> list[str]:
        """The names of the subjects, in the order they come in the file. Raises DataError as `load` does."""
        return list(self._by_subject(self.file))

    def load(self, source: str, wanted: Sequence[Pair]) -> Tables:
        """The wanted tables.

        Raises DataError if a file is missing or malformed, with its name and line, or has no rows of a subject.
        """
        path = user_path(source)
        files = {QUESTIONS: path, EXAMPLES: self.examples_file}
        read = {split: self._by_subject(file) for split, file in files.items() if file is not None}
        if path != self.file and (strange := read[QUESTIONS].keys() - set(self.subjects())):
            raise DataError(
                f"{path} has rows of the subject {quoted(min(strange))}, but {self.file} has none.", remedy=_REMEDY
            )
        rows: dict[Pair, list[Row]] = {}
        for subject, split in wanted:
            if subject not in read[split]:
                raise DataError(f"{files[split]} has no rows of the subject {quoted(subject)}.", remedy=_REMEDY)
            rows[subject, split] = read[split][subject]
        return Tables(source, f"file {path}", rows, fingerprint(rows, self.columns))

    def _by_subject(self, path: Path) -> dict[str, list[Row]]:
        """The rows of a file, by subject; every answer can be found, and none contradicts another."""
        rows: dict[str, list[Row]] = {}
        known_answers: dict[tuple[str, ...], tuple[str, str]] = {}
        for where, subject, row, _, gold in self._read(path):
            if not self.rule.can_find(gold.text):
                never = f"which the rule {self.rule.name} can never find in a reply"
                raise DataError(f"{where}: the answer is {quoted(gold.text)}, {never}.", remedy=_REMEDY)
            question = (subject, *(cell.strip() for name, cell in row.items() if name != "answer"))
            before, answer = known_answers.setdefault(question, (where, gold.text))
            if answer != gold.text:
                raise DataError(
                    f"{where}: the same question as in {before.removeprefix(f'{path}, ')}, whose answer is "
                    f"{quoted(answer)}; here it is {quoted(gold.text)}.",
                    remedy="Remove one of the two rows, or correct its answer.",
                )
            rows.setdefault(subject, []).append(row | {"answer": gold.text})
        return rows

    def _read(self, path: Path) -> list[_Asked]:
        records = _read_file(path)
        known = {column for _, record in records for column in record}
        rows = []
        for line, record in records:
            where = f"{path}, line {line}"
            row, options = self._row(record, known, where)
            subject = record.get(self.given.subject) if self.given.subject else self.file.stem
            if not isinstance(subject, str):
                raise self._no_column(self.given.subject or "", record, where)
            try:
                gold = self._gold(record, row, options, subject)
                if gold.is_options and (empty := [one for one in gold.text if not options.get(one, one).strip()]):
                    raise ValueError(f"the right answer is {empty[0]}, and that option is empty")  # noqa: TRY301
            except ValueError as error:
                raise DataError(f"{where}: {error}.", remedy=_REMEDY) from None
            rows.append(_Asked(where, subject.strip(), row, options, gold))
        indices = [one.gold.index for one in rows if one.gold.index is not None]
        # JSON's numbers are indices from 0 as in MMLU; of text, and where 0 is never right, that is less certain.
        enough = _SEVERAL if path.suffix.lower() == ".jsonl" else 1
        if self.given.first_index is None and len(indices) >= enough and 0 not in indices:
            raise DataError(
                f"{path} has numbers for answers, and none is 0: the options may be numbered from 0 or from 1.",
                remedy="Set 'rows.first_index' to 0 or 1.",
            )
        return rows

    def _row(self, record: Record, known: set[str], where: str) -> tuple[Row, Options]:
        """The cells a prompt needs, and the row's options."""
        columns = {name: self.given.columns.get(name, name) for name in self.columns}
        lists = {
            name: found
            for name, value in record.items()
            if name != columns["answer"] and (found := _options(name, value)) is not None
        }
        named = [column for column in columns.values() if column in lists]
        if not named and any(columns[letter] not in record for letter in self.option_columns):
            named = list(lists)
        listed_options = lists[named[0]] if len(named) == 1 else None
        row: Row = {}
        for name, column in columns.items():
            value = record.get(column)
            if column in lists and name != "answer":
                row[name] = numbered(lists[column])
            elif isinstance(value, str):
                row[name] = value
            elif name in self.option_columns and (listed_options or column in known):
                row[name] = (listed_options or {}).get(name, "")
            elif name != "answer" or not isinstance(value, list):
                raise self._no_column(column, record, where)
        if listed_options is not None:
            return row, dict(listed_options)
        letters = self.option_columns
        while letters and not row[letters[-1]].strip():
            letters = letters[:-1]
        return row, {letter: row[letter] for letter in letters}

    def _gold(self, record: Record, row: Row, options: Options, subject: str) -> Gold:
        """The right answer. Raises ValueError if the row is not a question that can be asked and scored."""
        if not subject.strip():
            raise ValueError("the subject is empty")
        asked = [name for name in row if name != "answer" and name not in self.option_columns]
        if not any(row[name].strip() for name in asked or self.option_columns):
            raise ValueError("the question is empty")
        if self.option_columns and len(options) < 2:
            raise ValueError("it has fewer than two options")
        letters = "".join(options) or getattr(self.rule, "options", "") or _CAPITALS.get(self.rule.name, "")
        written = record.get(self.given.columns.get("answer", "answer"))
        texts = not isinstance(self.rule, Pattern)
        base = self.given.first_index or 0
        answers = written if isinstance(written, list) else [written]
        golds = [
            read_gold(one, options, letters, texts=texts, how=self.given.answer_as, base=base)
            for one in answers
            if isinstance(one, str) and one.strip()
        ]
        if not golds or len(golds) != len(answers):
            raise ValueError("the answer is empty")
        if len(golds) == 1:
            return golds[0]
        if not all(gold.is_options for gold in golds):
            raise ValueError("the answers are not all options")
        return Gold(in_order("".join(gold.text for gold in golds), letters), is_options=True)

    def _no_column(self, column: str, record: Record, where: str) -> DataError:
        return DataError(
            f"{self.name} needs the column {column!r}, but {where} has none of this name with text in it; "
            f"it has {listed(record)}.",
            remedy=f"{did_you_mean(column, record, 'Fix the file.')} 'rows.columns' holds names that differ.",
        )


def _options(column: str, value: object) -> Options | None:
    if isinstance(value, str):
        return options_in_cell(value) if column.lower() in _LISTS else None
    return options_in(value)


def _read_file(path: Path) -> list[tuple[int, Record]]:
    where = str(path)
    if not is_unicode(where):
        raise DataError(f"The path {where!r} is not valid UTF-8.", remedy="Rename the file.")
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise DataError(f"{where} is neither a .csv nor a .jsonl.", remedy=f"Use a .csv or .jsonl file. {_OF_A_LIST}")
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise DataError(
            f"There is no file {where}.", remedy="Check the path; it is relative to the task file."
        ) from None
    except OSError as error:
        raise DataError(
            f"{where} cannot be read: {error.strerror or error}.", remedy="Check the path and the file's permissions."
        ) from None
    rows = _csv_rows(data, where) if path.suffix.lower() == ".csv" else _json_rows(data, where)
    if not rows:
        raise DataError(f"{where} has no rows.", remedy=_REMEDY)
    return rows


def _csv_rows(data: bytes, where: str) -> list[tuple[int, Record]]:
    header, records = read_records(data, where)
    twice = [column for column, count in Counter(header).items() if column and count > 1]
    if twice:
        raise DataError(f"{where}: column {quoted(twice[0])} appears twice.", remedy=_REMEDY)
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in records]


def _json_rows(data: bytes, where: str) -> list[tuple[int, Record]]:
    rows: list[tuple[int, Record]] = []
    for number, line in enumerate(decode(data, where).split("\n"), 1):
        if line.strip():
            if len(rows) == MAX_ROWS:
                raise DataError(f"{where} has more than {MAX_ROWS:,} rows.", remedy=_REMEDY)
            rows.append((number, _json_row(line, f"{where}, line {number}")))
    return rows


def _json_row(line: str, where: str) -> Record:
    """The keys of an object whose values are text, numbers, lists or objects; a number is the text it is written as."""
    try:
        content = json.loads(
            line, parse_int=Number, parse_float=Number, parse_constant=_refuse, object_pairs_hook=_object
        )
        json.dumps(content, ensure_ascii=False).encode()  # fails where half a character is escaped
    except (ValueError, RecursionError) as error:
        remedy = _OF_A_LIST if line.startswith("[") else _REMEDY
        raise DataError(f"{where}: not valid JSON ({one_line(str(error))}).", remedy=remedy) from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: not a JSON object.", remedy=_OF_A_LIST)
    return {key: value for key, value in content.items() if isinstance(value, str | list | dict)}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {quoted(twice)} appears twice")
    return content
