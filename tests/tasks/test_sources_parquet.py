"""How a benchmark's Parquet files are read, and what makes one an error."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bundle.errors import DataError
from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources import Row, load_tables
from bundle.tasks.sources.parquet_files import find_shards, read_shards
from tests.tasks.source_files import (
    CEVAL,
    CMMLU,
    WANTED,
    ceval_rows,
    csv_bytes,
    parquet_bytes,
    parquet_files,
    question,
    write_files,
)

NAME = "law/val-00000-of-00001.parquet"


def read(root: Path, files: Mapping[str, bytes], benchmark: Benchmark = CEVAL, split: str = "val") -> list[Row]:
    write_files(root, files)
    pair = "law", split
    return read_shards({name: root / name for name in files}, {pair: list(files)}, benchmark, [pair], "hub: ")[pair]


def with_number(row: Row, **cells: object) -> dict[str, object]:
    return {**row, "id": int(row["id"]), **cells}


def test_text_stays_as_it_is_and_ids_become_text(tmp_path: Path) -> None:
    rows = ceval_rows()["law", "val"]
    assert read(tmp_path, {NAME: parquet_bytes([with_number(row) for row in rows])}) == rows


def test_a_line_end_inside_a_cell_is_a_newline_as_in_a_csv_file(tmp_path: Path) -> None:
    [row] = read(tmp_path, {NAME: parquet_bytes([question(0, question="one\r\ntwo\rthree\nfour")])})
    assert row["question"] == "one\ntwo\nthree\nfour"


def test_a_table_in_several_files_is_put_together_in_order(tmp_path: Path) -> None:
    rows = ceval_rows()["law", "val"]
    files = {
        f"law/val-0000{part}-of-00003.parquet": parquet_bytes(
            [with_number(row) for row in rows[part * 4 : part * 4 + 4]]
        )
        for part in range(3)
    }
    assert read(tmp_path, files) == rows


def test_the_files_of_a_table_are_found_by_their_names() -> None:
    names = [
        "README.md",
        "law/dev-00000-of-00001-0d5cd0cc1d9b1b6f.parquet",
        "law/val-00001-of-00002.parquet",
        "law/val-00000-of-00002.parquet",
        "logic/val-00000-of-00002.parquet",
        "default/law/test-00000-of-00001.parquet",
    ]
    wanted = [("law", "dev"), ("law", "val"), ("law", "test"), ("logic", "val")]
    assert find_shards(names, wanted) == {("law", "dev"): [names[1]], ("law", "val"): [names[3], names[2]]}


def test_rows_without_ids_are_numbered_from_0_across_the_files_of_a_table(tmp_path: Path) -> None:
    row = {"Question": "问题", "A": "0.10", "B": "乙", "C": "丙", "D": "丁", "Answer": "C"}
    files = {f"agronomy/test-0000{part}-of-00002.parquet": parquet_bytes([row, row]) for part in range(2)}
    rows = read(tmp_path, files, CMMLU, "test")
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[3] == {"id": "3", "question": "问题", "A": "0.10", "B": "乙", "C": "丙", "D": "丁", "answer": "C"}


def test_a_null_in_an_optional_column_is_its_default(tmp_path: Path) -> None:
    rows = read(tmp_path, {NAME: parquet_bytes([with_number(question(0)), with_number(question(1), explanation=None)])})
    assert rows[1]["explanation"] == ""


def test_an_answer_may_be_null_where_it_is_secret(tmp_path: Path) -> None:
    rows = read(tmp_path, {NAME: parquet_bytes([with_number(question(0), answer=None)])}, split="test")
    assert rows[0]["answer"] == ""


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"A": None}, "row 2: column 'A' is null."),
        ({"id": None}, "row 2: column 'id' is null."),
        ({"answer": "E"}, "row 2: the answer is 'E', not one of A, B, C, D."),
        ({"answer": None}, "row 2: the answer is '', not one of A, B, C, D."),
        ({"id": 0}, "row 2: id '0' was already used in row 1."),
        ({"question": " "}, "row 2: the question is empty."),
    ],
)
def test_a_row_that_is_no_question_is_an_error(cells: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {NAME: parquet_bytes([with_number(question(0)), with_number(question(1), **cells)])})
    assert caught.value.message == f"hub: {NAME}, {problem}"


@pytest.mark.parametrize(("cell", "kind"), [(0.1, "float"), (1, "int"), (True, "bool"), (b"x", "bytes"), ([], "list")])
def test_a_column_that_is_not_text_is_an_error_because_its_writing_is_lost(
    cell: object, kind: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"row 1: column 'B' holds a {kind}, not text"):
        read(tmp_path, {NAME: parquet_bytes([with_number(question(0), B=cell)])})


def test_an_id_that_is_no_whole_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1: column 'id' holds a bool, not text"):
        read(tmp_path, {NAME: parquet_bytes([with_number(question(0), id=True)])})


def test_a_missing_column_is_named_together_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'A' is missing; the columns are 'id', 'question', 'answer'"):
        read(tmp_path, {NAME: parquet_bytes([{"id": 0, "question": "?", "answer": "A"}])})


@pytest.mark.parametrize("folder", ["a[1]b", "*", "a::b", "a b%20c", "train-test", "中文"])
def test_a_folder_may_have_any_name(folder: str, tmp_path: Path) -> None:
    rows = ceval_rows()
    write_files(tmp_path / folder, parquet_files(rows))
    assert load_tables(str(tmp_path / folder), CEVAL, WANTED).rows == rows


def test_files_with_other_columns_are_read_all_the_same(tmp_path: Path) -> None:
    rows = ceval_rows()
    files = parquet_files(rows)
    files["law/val-00000-of-00001.parquet"] = parquet_bytes(
        [with_number(row) | {"extra": 1.5} for row in rows["law", "val"]]
    )
    files["logic/dev-00000-of-00001.parquet"] = parquet_bytes(
        [dict(reversed(with_number(row).items())) for row in rows["logic", "dev"]]
    )
    write_files(tmp_path, files)
    assert load_tables(str(tmp_path), CEVAL, WANTED).rows == rows


def test_one_damaged_file_among_others_is_named(tmp_path: Path) -> None:
    files = parquet_files(ceval_rows())
    sound = files["logic/val-00000-of-00001.parquet"]
    files["logic/val-00000-of-00001.parquet"] = sound[:4] + b"\xff" * 200 + sound[204:]
    write_files(tmp_path, files)
    with pytest.raises(DataError, match=r"logic/val-00000-of-00001\.parquet is not a readable Parquet file"):
        load_tables(str(tmp_path), CEVAL, WANTED)


def test_all_files_with_the_same_columns_are_read_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []
    real = datasets.Dataset.from_parquet

    def counted(paths: list[str], **options: object) -> object:
        calls.append(len(paths))
        return real(paths, **options)

    monkeypatch.setattr(datasets.Dataset, "from_parquet", counted)
    write_files(tmp_path, parquet_files(ceval_rows()))
    load_tables(str(tmp_path), CEVAL, WANTED)
    assert calls == [len(WANTED)]


@pytest.mark.parametrize(
    "data",
    [b"", csv_bytes([question(0)]), parquet_bytes([question(0)])[:-9]],
)
def test_a_file_that_is_no_parquet_is_an_error_that_says_how_to_get_it_again(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a readable Parquet file") as caught:
        read(tmp_path, {NAME: data})
    assert caught.value.remedy == f"Remove {tmp_path / NAME} and run again."
