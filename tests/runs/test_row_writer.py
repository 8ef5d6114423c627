"""Rows reach the file whole, in order, and while their maker does something else."""

import os
from pathlib import Path

import pytest

from bundle.errors import RunError
from bundle.runs.row_writer import RowWriter


def test_rows_are_in_the_file_in_the_order_they_came(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("before\n")
    writer = RowWriter(path)

    for number in range(1000):
        writer.put(lambda number=number: f"row {number}")  # type: ignore[misc]
    writer.flush()

    assert path.read_text().splitlines() == ["before", *(f"row {number}" for number in range(1000))]
    writer.close()


def test_what_was_not_flushed_is_written_on_closing(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows")
    writer.put(lambda: "last")
    writer.close()

    assert (tmp_path / "rows").read_text() == "last\n"


def test_a_flush_with_nothing_to_write_is_at_once(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows")
    writer.flush()
    writer.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_is_told_when_flushing_and_at_the_next_row(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)
    writer.put(lambda: "row")

    with pytest.raises(RunError, match="No space left"):
        writer.flush()
    with pytest.raises(RunError, match="No space left"):
        writer.put(lambda: "row")
    writer.close()


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(2)):
        RowWriter(tmp_path / "nowhere" / "rows")
