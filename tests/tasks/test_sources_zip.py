"""Zip files as people and programs make them, and as those make them who mean harm."""

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest

from bundle.errors import DataError
from bundle.tasks.sources import load_tables, zip_files
from tests.tasks.source_files import CEVAL, WANTED, ceval_files, ceval_rows, zip_bytes

ROWS = ceval_rows()
FILES = ceval_files(ROWS)


def failure(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        load_tables(str(path), CEVAL, WANTED)
    assert caught.value.remedy
    return caught.value


def with_names_in(encoding: str, folder: str) -> bytes:
    """A .zip as programs write it that know nothing of UTF-8: its names are bytes of their system's encoding."""
    placeholder = "x" * (len(folder.encode(encoding)))
    data = zip_bytes(FILES, f"{placeholder}/")
    return data.replace(placeholder.encode(), folder.encode(encoding))


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
@pytest.mark.parametrize("folder", ["题库", "語言學", "乗"])  # in GBK, the second byte of the last one is a backslash
def test_a_chinese_folder_has_its_name_whatever_program_made_the_archive(
    encoding: str, folder: str, tmp_path: Path
) -> None:
    path = tmp_path / "exam.zip"
    path.write_bytes(with_names_in(encoding, folder))
    tables = load_tables(str(path), CEVAL, WANTED)
    assert tables.rows == ROWS
    assert tables.origin == f"zip file {path} (folder {folder}/)"


def test_a_pipe_in_place_of_an_archive_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "exam.zip")
    assert "is a pipe, a device or a socket" in failure(tmp_path / "exam.zip").message


def test_a_pipe_in_place_of_a_table_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev" / "law_dev.csv")
    assert "dev/law_dev.csv" in failure(tmp_path).message


def test_a_zip_in_a_zip_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "outer.zip"
    path.write_bytes(zip_bytes({"download/ceval-exam.zip": zip_bytes(FILES)}))
    assert failure(path).remedy == "Unpack it and give the .zip inside, download/ceval-exam.zip."


def test_a_directory_of_millions_of_names_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    data = bytearray(zip_bytes(FILES))
    end = data.rfind(b"PK\x05\x06")
    size = zip_files.MAX_DIRECTORY_BYTES + 1
    begin = struct.unpack_from("<I", data, end + 16)[0]
    struct.pack_into("<I", data, end + 12, size)
    path.write_bytes(bytes(data[:begin]) + bytes(size) + bytes(data[end:]))
    assert failure(path).message == f"zip file {path} lists far more files than the benchmark has."


def test_a_name_of_very_many_folders_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "deep.zip"
    file = io.BytesIO(zip_bytes(FILES))
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(100):
            archive.writestr("a/" * 30_000 + str(number), b"")
    path.write_bytes(file.getvalue())
    assert load_tables(str(path), CEVAL, WANTED).rows == ROWS


def test_a_size_that_the_archive_understates_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "lies.zip"
    data = bytearray(zip_bytes({**FILES, "val/law_val.csv": b"x" * 10**6}))
    place = data.rfind(b"val/law_val.csv") - 46
    struct.pack_into("<I", data, place + 24, 10)  # its size when inflated
    path.write_bytes(data)
    assert "cannot be read" in failure(path).message
