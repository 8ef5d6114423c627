"""Small benchmarks in the layouts of C-Eval and CMMLU, for the tests of the data sources."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.tasks.benchmarks import BENCHMARKS
from bundle.tasks.sources import Row

CEVAL, CMMLU = BENCHMARKS["ceval"], BENCHMARKS["cmmlu"]

SUBJECTS = ("law", "logic", "physician")
WANTED = [(subject, split) for subject in SUBJECTS for split in ("dev", "val")]


def question(number: int, **cells: str) -> Row:
    """A C-Eval row."""
    row = {"id": str(number), "question": f"{number} + 1 = ____。"}
    row |= {letter: str(number + place) for place, letter in enumerate("ABCD")}
    return row | {"answer": "B", "explanation": ""} | cells


def csv_bytes(rows: Sequence[Mapping[str, str]], columns: Sequence[str] | None = None, line_end: str = "\r\n") -> bytes:
    """The rows as a CSV file."""
    columns = list(rows[0]) if columns is None else columns
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def ceval_rows() -> dict[tuple[str, str], list[Row]]:
    """Rows for every pair in WANTED, with the cells that other readers spoil."""
    odd = ["0.10", "NA", "null", " 空格 ", 'a "quoted" word', "1,000", "two\nlines", "", "None", "1e5"]
    return {
        (subject, split): [
            question(number, question=f"{subject} {split} {number}？", A=odd[number], explanation=odd[-number - 1])
            for number in range(len(odd))
        ]
        for subject, split in WANTED
    }


def ceval_files(rows: Mapping[tuple[str, str], Sequence[Row]]) -> dict[str, bytes]:
    """The CSV files of C-Eval's layout."""
    names = CEVAL.file_names(list(rows))
    return {names[pair]: csv_bytes(table) for pair, table in rows.items()}


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files below a directory."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zip_bytes(files: Mapping[str, bytes], folder: str = "") -> bytes:
    """The files as a .zip, in a folder inside it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return buffer.getvalue()


def parquet_bytes(rows: Sequence[Mapping[str, object]]) -> bytes:
    """The rows as a Parquet file, as the hub stores them: ids are numbers."""
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
    return buffer.getvalue()


def parquet_files(rows: Mapping[tuple[str, str], Sequence[Row]]) -> dict[str, bytes]:
    """The Parquet files of the hub's layout."""
    return {
        f"{subject}/{split}-00000-of-00001.parquet": parquet_bytes([{**row, "id": int(row["id"])} for row in table])
        for (subject, split), table in rows.items()
    }
