"""How a benchmark's CSV file is read, and what makes it an error."""

import csv
import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import DataError
from bundle.tasks.sources import Row, load_tables
from bundle.tasks.sources.csv_files import read_csv
from tests.tasks.source_files import CEVAL, CMMLU, ceval_files, ceval_rows, csv_bytes, question, write_files


def read(data: bytes, split: str = "val") -> list[Row]:
    return read_csv(data, f"law_{split}.csv", CEVAL, split)


def failure(data: bytes, split: str = "val") -> str:
    with pytest.raises(DataError) as caught:
        read(data, split)
    assert caught.value.remedy
    return caught.value.message


GOOD = csv_bytes([question(0), question(1)])


@pytest.mark.parametrize(
    "cell", ["0.10", "NA", "null", "None", "nan", "1e5", "007", "True", " 左右空格 ", 'say "A"', "a,b"]
)
def test_a_cell_is_the_text_in_the_file_and_nothing_else(cell: str) -> None:
    assert read(csv_bytes([question(0, A=cell)]))[0]["A"] == cell


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_line_end_inside_quotes_is_a_newline_as_in_opencompass(line_end: str, tmp_path: Path) -> None:
    data = csv_bytes([question(0, question="first\r\nsecond\rthird\nfourth")], line_end=line_end)
    path = tmp_path / "law_val.csv"
    path.write_bytes(data)
    with path.open(encoding="utf-8") as file:  # OpenCompass's way
        header, row = list(csv.reader(file))
    assert read(data)[0] == dict(zip(header, row, strict=True))
    assert read(data)[0]["question"] == "first\nsecond\nthird\nfourth"


# What text mode would translate, a file cannot hold, or our checks would refuse; each has a test of its own.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=40)


@given(
    rows=st.lists(
        st.tuples(CELLS.filter(str.strip), CELLS, CELLS, st.sampled_from("BC"), CELLS), min_size=1, max_size=6
    ),
    line_end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2]),
)
def test_whatever_text_is_written_is_read_back(
    rows: list[tuple[str, str, str, str, str]], line_end: str, mark: bytes
) -> None:
    written = [
        question(number, question=text, A=first, D=last, answer=answer, explanation=why)
        for number, (text, first, last, answer, why) in enumerate(rows)
    ]
    data = csv_bytes(written, line_end=line_end)
    assert read(mark + data) == written
    as_opencompass = csv.DictReader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    assert list(as_opencompass) == written


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_rows_or_a_data_error(noise: bytes) -> None:
    for data in (noise, GOOD + noise, GOOD[:60] + noise + GOOD[60:]):
        try:
            rows = read(data)
        except DataError as error:
            message = error.message
        else:
            assert all(row.keys() == question(0).keys() for row in rows)
            continue
        assert message.startswith("law_val.csv")


def test_columns_come_under_the_benchmarks_names(tmp_path: Path) -> None:
    text = ",Question,A,B,C,D,Answer\n0,问题,甲,乙,丙,丁,C\n"
    write_files(tmp_path, {"test/agronomy.csv": text.encode()})
    tables = load_tables(str(tmp_path), CMMLU, [("agronomy", "test")])
    assert tables.rows["agronomy", "test"] == [
        {"id": "0", "question": "问题", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "C"}
    ]


def test_columns_may_come_in_any_order_and_unknown_ones_are_left_out() -> None:
    columns = ["level", "answer", "D", "C", "B", "A", "question", "id"]
    assert read(csv_bytes([question(0, level="3")], columns)) == [question(0)]


def test_an_optional_column_that_is_missing_has_its_default() -> None:
    assert read(csv_bytes([question(0)], ["id", "question", *"ABCD", "answer"]))[0]["explanation"] == ""


def test_answers_may_be_missing_or_empty_only_where_they_are_secret() -> None:
    without = csv_bytes([question(0)], ["id", "question", *"ABCD"])
    empty = csv_bytes([question(0, answer="")])
    assert read(without, "test")[0]["answer"] == ""
    assert read(empty, "test")[0]["answer"] == ""
    assert "law_val.csv: column 'answer' is missing" in failure(without)
    assert "law_val.csv, line 2: the answer is ''" in failure(empty)


def test_a_published_answer_of_a_secret_split_is_kept() -> None:
    assert read(GOOD, "test")[0]["answer"] == "B"


def test_empty_lines_at_the_end_are_no_questions() -> None:
    assert read(GOOD + b"\r\n\r\n\n") == read(GOOD)


def test_an_empty_line_between_questions_is_an_error() -> None:
    lines = GOOD.splitlines(keepends=True)
    assert "law_val.csv, line 3: empty line" in failure(b"".join([*lines[:2], b"\r\n", *lines[2:]]))


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_an_empty_file_is_an_error(data: bytes) -> None:
    assert failure(data) == "law_val.csv is empty."


def test_a_header_without_questions_is_an_error() -> None:
    assert failure(GOOD.splitlines(keepends=True)[0]) == "law_val.csv has a header and no questions."


def test_a_missing_column_is_named_together_with_those_that_are_there() -> None:
    message = failure(csv_bytes([question(0)], ["id", "question", "A", "B", "C", "answer"]))
    assert message == "law_val.csv: column 'D' is missing; the columns are 'id', 'question', 'A', 'B', 'C', 'answer'."


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_than_commas_are_named(separator: str) -> None:
    message = failure(GOOD.replace(b",", separator.encode()))
    assert message == f"law_val.csv: its columns are not separated by commas but by {separator!r}."


def test_a_column_that_is_there_twice_is_an_error() -> None:
    assert "column 'A' appears twice" in failure(b"id,question,A,A,B,C,D,answer\n0,q,1,2,3,4,5,A\n")


@pytest.mark.parametrize(("line", "count"), [("2,q,1,2,3", 5), ("2,q,1,2,3,4,B,,more", 9)])
def test_a_row_with_too_few_or_too_many_cells_is_an_error(line: str, count: int) -> None:
    assert failure(GOOD + line.encode()) == f"law_val.csv, line 4: {count} cells, but the header has 8."


def test_the_line_of_an_error_is_where_its_row_begins_even_after_cells_of_several_lines() -> None:
    data = csv_bytes([question(0, question="one\ntwo\nthree"), question(1, question="four\nfive", answer="E")])
    assert failure(data).startswith("law_val.csv, line 5: ")


@pytest.mark.parametrize("answer", ["E", "b", "AB", " B", "B ", "Ｂ", ""])
def test_an_answer_that_is_none_of_the_letters_is_an_error(answer: str) -> None:
    message = failure(csv_bytes([question(0), question(1, answer=answer)]))
    assert message == f"law_val.csv, line 3: the answer is {answer!r}, not one of A, B, C, D."


def test_an_id_used_twice_is_an_error_that_names_both_lines() -> None:
    message = failure(csv_bytes([question(0), question(7), question(7)]))
    assert message == "law_val.csv, line 4: id '7' was already used in line 3."


def test_an_empty_id_is_an_error() -> None:
    assert "line 2: the id is empty" in failure(csv_bytes([question(0, id="")]))


@pytest.mark.parametrize("text", ["", " ", "\n", "　"])
def test_an_empty_question_is_an_error(text: str) -> None:
    assert "line 3: the question is empty" in failure(csv_bytes([question(0), question(1, question=text)]))


def test_text_that_is_not_utf8_is_an_error_with_its_line() -> None:
    message = failure(GOOD + "2,法律,1,2,3,4,B,\n".encode("gb18030"))
    assert message == "law_val.csv, line 4: not UTF-8 (byte 0xb7)."


def test_a_nul_is_an_error_with_its_line() -> None:
    assert failure(GOOD + b"2,q\0,1,2,3,4,B,\n") == "law_val.csv, line 4: a NUL character."


def test_a_quote_that_is_never_closed_is_an_error_where_it_was_opened() -> None:
    data = csv_bytes([question(0)]) + b'1,"never closed,1,2,3,4,B,\n' + csv_bytes([question(2)])
    assert failure(data) == "law_val.csv, line 3: a quote is opened here and never closed."


def test_text_after_a_closing_quote_is_an_error() -> None:
    assert "line 4" in failure(GOOD + b'2,"quoted" and not,1,2,3,4,B,\n')


def test_a_cell_of_more_than_a_megabyte_is_an_error() -> None:
    assert "line 3: a cell has more than" in failure(csv_bytes([question(0), question(1, C="x" * 2**20)]))


def test_the_fingerprint_is_of_the_text_and_not_of_its_order_or_wrapping(tmp_path: Path) -> None:
    rows = ceval_rows()
    pairs = list(rows)
    plain = load_tables(str(write_files(tmp_path / "plain", ceval_files(rows))), CEVAL, pairs)
    other = {name: b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n") for name, data in ceval_files(rows).items()}
    again = load_tables(str(write_files(tmp_path / "other", other)), CEVAL, pairs[::-1])
    assert plain.rows == again.rows == rows
    assert plain.fingerprint == again.fingerprint
    assert len(plain.fingerprint) == 64


@pytest.mark.parametrize("column", CEVAL.columns)
def test_the_fingerprint_changes_with_any_cell(column: str, tmp_path: Path) -> None:
    rows = ceval_rows()
    before = load_tables(str(write_files(tmp_path, ceval_files(rows))), CEVAL, list(rows)).fingerprint
    rows["law", "val"][3] |= {column: "A" if column == "answer" else "changed"}
    after = load_tables(str(write_files(tmp_path, ceval_files(rows))), CEVAL, list(rows)).fingerprint
    assert before != after


def test_the_fingerprint_can_be_made_again_from_its_description(tmp_path: Path) -> None:
    write_files(tmp_path, ceval_files({("law", "val"): [question(0, A='引"号')]}))
    line = '["law","val",[["0","0 + 1 = ____。","引\\"号","1","2","3","B"]]]\n'
    assert load_tables(str(tmp_path), CEVAL, [("law", "val")]).fingerprint == hashlib.sha256(line.encode()).hexdigest()
