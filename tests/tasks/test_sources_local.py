"""Questions from a directory, a .zip or the package."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import DataError
from bundle.tasks.sources import load_tables, tables
from tests.stand_ins.box import ROOT
from tests.tasks.source_files import (
    CEVAL,
    CMMLU,
    WANTED,
    ceval_files,
    ceval_rows,
    csv_bytes,
    parquet_bytes,
    parquet_files,
    question,
    write_files,
    zip_bytes,
)

ROWS = ceval_rows()
FILES = ceval_files(ROWS)


def failure(source: Path | str) -> DataError:
    with pytest.raises(DataError) as caught:
        load_tables(str(source), CEVAL, WANTED)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_directory_gives_exactly_the_wanted_tables(tmp_path: Path) -> None:
    write_files(tmp_path, FILES | {"val/unwanted_val.csv": b"broken"})
    tables = load_tables(str(tmp_path), CEVAL, WANTED)
    assert tables.rows == ROWS
    assert list(tables.rows) == WANTED
    assert tables.source == str(tmp_path)
    assert tables.origin == f"directory {tmp_path}"


def test_the_home_directory_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "home/ceval", FILES)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tables = load_tables("~/ceval", CEVAL, WANTED)
    assert tables.rows == ROWS
    assert tables.origin == f"directory {tmp_path}/home/ceval"


def test_a_relative_path_is_written_down_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "hub", FILES)
    monkeypatch.chdir(tmp_path)
    assert load_tables("./hub", CEVAL, WANTED).origin == f"directory {tmp_path}/hub"


@pytest.mark.parametrize("folder", ["", "ceval-exam/", "data/ceval/formal_ceval/"])
def test_a_zip_gives_the_same_as_the_directory_it_was_made_of(folder: str, tmp_path: Path) -> None:
    write_files(tmp_path / "ceval", FILES)
    path = tmp_path / "ceval.zip"
    path.write_bytes(zip_bytes(FILES | {"README.md": b"", "__MACOSX/val/._law_val.csv": b""}, folder))
    tables = load_tables(str(path), CEVAL, WANTED)
    assert tables.rows == ROWS
    assert tables.fingerprint == load_tables(str(tmp_path / "ceval"), CEVAL, WANTED).fingerprint
    assert tables.origin == f"zip file {path}" + (f" (folder {folder})" if folder else "")


@pytest.mark.parametrize(
    "source", ["nowhere", "Hub", "model-scope", "ceval/ceval-exam", "", "~nobody-of-this-name/x", "a\0b"]
)
def test_a_source_that_is_neither_known_nor_there_is_an_error(source: str) -> None:
    assert repr(source) in failure(source).message


def test_an_unknown_source_names_the_known_ones() -> None:
    assert "hub, modelscope or sample" in failure("nowhere").message


def test_a_file_that_is_no_zip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "law_val.csv"
    path.write_bytes(FILES["val/law_val.csv"])
    assert failure(path).message == f"{path} is neither a directory nor a .zip."


def test_a_missing_file_is_named_with_what_is_there_instead(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    (tmp_path / "val/law_val.csv").unlink()
    message = failure(tmp_path).message
    assert message == (
        f"val/law_val.csv is missing from directory {tmp_path}; it contains val/logic_val.csv, val/physician_val.csv."
    )


@pytest.mark.parametrize("below", ["ceval", "ceval/formal_ceval", "data/ceval/formal_ceval"])
def test_a_directory_up_to_three_levels_too_high_is_read_and_this_is_said(below: str, tmp_path: Path) -> None:
    write_files(tmp_path / below, FILES)
    said: list[str] = []
    tables = load_tables(str(tmp_path), CEVAL, WANTED, said.append)
    assert tables.rows == ROWS
    assert tables.origin == f"directory {tmp_path / below}"
    assert said[0] == f"Reading C-Eval from {tmp_path / below}."


def test_several_copies_below_a_directory_are_an_error_that_names_them(tmp_path: Path) -> None:
    write_files(tmp_path / "one", FILES)
    write_files(tmp_path / "two", FILES)
    assert failure(tmp_path).message == f"{tmp_path} has C-Eval more than once: {tmp_path}/one, {tmp_path}/two."


def test_parquet_files_as_the_hub_s_clients_write_them_are_read(tmp_path: Path) -> None:
    write_files(tmp_path / "ceval-exam", parquet_files(ROWS) | {"README.md": b"", ".cache/x/law/dev.csv": b""})
    for root in (tmp_path, tmp_path / "ceval-exam"):
        tables = load_tables(str(root), CEVAL, WANTED)
        assert tables.rows == ROWS
        assert tables.origin == f"directory {tmp_path}/ceval-exam"


def test_parquet_files_of_the_hub_s_converted_branch_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, {n.replace("-00000-of-00001", "/0000"): data for n, data in parquet_files(ROWS).items()})
    assert load_tables(str(tmp_path), CEVAL, WANTED).rows == ROWS


def test_a_snapshot_in_the_hub_s_cache_is_read(tmp_path: Path) -> None:
    snapshot = "datasets--ceval--ceval-exam/snapshots/0123abc"
    write_files(tmp_path / snapshot, parquet_files(ROWS))
    tables = load_tables(str(tmp_path / "datasets--ceval--ceval-exam"), CEVAL, WANTED)
    assert (tables.rows, tables.origin) == (ROWS, f"directory {tmp_path / snapshot}")


def test_a_table_missing_among_parquet_files_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, parquet_files({pair: ROWS[pair] for pair in WANTED[:-1]}))
    assert f"physician/val-*.parquet is missing from directory {tmp_path}; it contains law" in failure(tmp_path).message


@pytest.mark.parametrize("name", ["ceval-exam.zip", "ceval.zip"])
@pytest.mark.parametrize("folder", ["", "evaluation/ceval"])
def test_a_folder_that_has_the_zip_is_read_from_it(name: str, folder: str, tmp_path: Path) -> None:
    files = {name: zip_bytes(FILES), "ceval-exam.py": b"raise SystemExit", "other.zip": zip_bytes({"x": b""})}
    write_files(tmp_path / folder, files)
    tables = load_tables(str(tmp_path), CEVAL, WANTED)
    assert tables.rows == ROWS
    assert tables.origin == f"zip file {tmp_path / folder / name}"


def test_a_damaged_zip_in_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_files(tmp_path, {"ceval-exam.zip": zip_bytes(FILES)[:-30]})
    assert f"zip file {tmp_path}/ceval-exam.zip cannot be read" in failure(tmp_path).message


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (LFS, "is a git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\x1f\x8b\x08\0", "is packed with gzip"),
        (b"PK\x03\x04\x14\0", "is an Excel workbook"),
    ],
)
def test_what_came_in_place_of_a_file_is_named(data: bytes, what: str, tmp_path: Path) -> None:
    write_files(tmp_path / "csv", FILES | {"val/law_val.csv": data})
    assert f"{tmp_path}/csv/val/law_val.csv {what}" in failure(tmp_path / "csv").message
    if data[:2] == b"PK":
        return
    write_files(tmp_path, {"ceval.zip": data})
    assert failure(tmp_path / "ceval.zip").message.startswith(f"zip file {tmp_path}/ceval.zip {what}")
    parquet = parquet_files(ROWS) | {"law/val-00000-of-00001.parquet": data}
    write_files(tmp_path / "parquet", parquet)
    assert f"law/val-00000-of-00001.parquet {what}" in failure(tmp_path / "parquet").message


@pytest.mark.parametrize(
    ("rename", "remedy"),
    [
        (lambda name: name + ".gz", "Unpack {root}/dev/law_dev.csv.gz"),
        (lambda name: name.replace(".csv", ".tsv"), "Save {root}/dev/law_dev.tsv"),
        (lambda name: name.replace(".csv", ".xlsx"), "Save {root}/dev/law_dev.xlsx"),
        (lambda name: name.upper(), "rename {root}/DEV/LAW_DEV.CSV to dev/law_dev.csv"),
        (
            lambda name: f"law/{name[:3]}/data-00000-of-00001.arrow",
            "{root}/law/dev/data-00000-of-00001.arrow is not in",
        ),
        (lambda name: "data/ceval.tar.gz", "Unpack {root}/data/ceval.tar.gz"),
    ],
)
def test_questions_in_another_form_are_named_with_what_makes_them_readable(
    rename: Callable[[str], str], remedy: str, tmp_path: Path
) -> None:
    write_files(tmp_path, {rename(name): b"x" for name in FILES})
    assert remedy.format(root=tmp_path) in (failure(tmp_path).remedy or "")


def test_an_archive_that_is_packed_otherwise_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "ceval.tar.gz").write_bytes(b"x")
    error = failure(tmp_path / "ceval.tar.gz")
    assert (error.message, error.remedy) == (
        f"{tmp_path}/ceval.tar.gz is neither a directory nor a .zip.",
        "Unpack it, and give what is inside.",
    )


def test_a_file_cut_between_rows_is_noticed_by_its_number_of_questions(tmp_path: Path) -> None:
    pair = ("law", "val")
    said: list[str] = []
    for count in (23, 24):
        write_files(tmp_path, ceval_files({pair: [question(number) for number in range(count)]}))
        tables = load_tables(str(tmp_path), CEVAL, [pair], said.append)
        assert tables.unlike == ({"val/law": (23, 24)} if count == 23 else {})
    assert said == ["not C-Eval as it was published: val/law 23/24 questions"]


def test_a_right_answer_whose_option_is_empty_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, FILES | {"val/logic_val.csv": csv_bytes([question(0, B=" ")])})
    assert failure(tmp_path).message.endswith("line 2: the right answer is B, and that option is empty.")


def cmmlu_files() -> dict[str, bytes]:
    header = ["", "Question", *"ABCD", "Answer"]
    rows = [{"": "0", "Question": "?", **dict.fromkeys("ABCD", "x"), "Answer": "A"}]
    return {f"{split}/{one.name}.csv": csv_bytes(rows, header) for one in CMMLU.subjects for split in ("dev", "test")}


def all_of_ceval() -> list[tuple[str, str]]:
    return [(subject.name, split) for subject in CEVAL.subjects for split in ("dev", "val")]


@pytest.mark.parametrize("kind", ["directory", "directory below", "zip", "zip in a folder", "parquet"])
def test_another_benchmark_s_data_is_recognized(kind: str, tmp_path: Path) -> None:
    match kind:
        case "directory" | "directory below":
            write_files(tmp_path / ("cmmlu" if "below" in kind else ""), cmmlu_files())
        case "zip" | "zip in a folder":
            write_files(tmp_path, {"cmmlu_v1_0_1.zip": zip_bytes(cmmlu_files(), "cmmlu/")})
        case "parquet":
            data = parquet_bytes([{"Question": "?", **dict.fromkeys("ABCD", "x"), "Answer": "A"}])
            names = [f"{one.name}/{split}" for one in CMMLU.subjects for split in ("dev", "test")]
            write_files(tmp_path, {f"{name}-00000-of-00001.parquet": data for name in names})
    source = tmp_path / "cmmlu_v1_0_1.zip" if kind == "zip" else tmp_path
    with pytest.raises(DataError) as caught:
        load_tables(str(source), CEVAL, all_of_ceval())
    assert caught.value.message == f"{source} looks like CMMLU, not C-Eval."
    assert "--task cmmlu_gen" in (caught.value.remedy or "")


def test_ceval_s_data_is_recognized_in_place_of_cmmlu_s(tmp_path: Path) -> None:
    rows = {pair: [question(0)] for pair in all_of_ceval()}
    write_files(tmp_path, ceval_files(rows))
    with pytest.raises(DataError, match="looks like C-Eval, not CMMLU"):
        load_tables(str(tmp_path), CMMLU, [("law", "test"), ("agronomy", "dev")])


def test_a_directory_one_level_too_low_leads_to_the_right_one(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    assert failure(tmp_path / "val").remedy == f"Did you mean {tmp_path}?"


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert failure(tmp_path / "empty").message.endswith("and 5 more of its 6 files; it contains nothing.")


def test_a_malformed_file_is_named_with_its_path(tmp_path: Path) -> None:
    write_files(tmp_path, FILES | {"val/logic_val.csv": csv_bytes([question(0, answer="F")])})
    assert failure(tmp_path).message.startswith(f"{tmp_path}/val/logic_val.csv, line 2: the answer is 'F'")


def test_a_malformed_file_in_a_zip_is_named_with_its_place_in_there(tmp_path: Path) -> None:
    path = tmp_path / "ceval.zip"
    path.write_bytes(zip_bytes(FILES | {"val/logic_val.csv": csv_bytes([question(0, answer="F")])}, "exam/"))
    assert failure(path).message.startswith(f"{path}: exam/val/logic_val.csv, line 2: the answer is 'F'")


def test_a_directory_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {name: data for name, data in FILES.items() if name != "val/law_val.csv"})
    (tmp_path / "val/law_val.csv").mkdir()
    assert "val/law_val.csv" in failure(tmp_path).message


def test_a_file_of_absurd_size_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    with (tmp_path / "val/law_val.csv").open("r+b") as file:
        file.truncate(tables.MAX_FILE_BYTES + 1)  # a hole, it takes no space
    assert "val/law_val.csv" in failure(tmp_path).message
    assert "is larger than" in failure(tmp_path).message


def test_a_file_missing_in_a_zip_is_named_with_what_is_there_instead(tmp_path: Path) -> None:
    path = tmp_path / "ceval.zip"
    path.write_bytes(zip_bytes({"val/law_val.csv": FILES["val/law_val.csv"]}))
    message = failure(path).message
    assert (
        message
        == f"dev/law_dev.csv is missing from zip file {path}, and 4 more of its 6 files; it contains val/law_val.csv."
    )


def test_a_zip_that_holds_the_benchmark_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "both.zip"
    path.write_bytes(zip_bytes({folder + name: data for folder in ("old/", "new/") for name, data in FILES.items()}))
    assert "more than once: in new/, old/" in failure(path).message


@pytest.mark.parametrize(
    "name", ["../val/law_val.csv", "/etc/val/law_val.csv", "x/../../law.csv", "..\\law.csv", "C:/law.csv"]
)
def test_a_zip_with_a_name_that_points_outside_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    path.write_bytes(zip_bytes(FILES | {name: b"x"}))
    assert "points outside" in failure(path).message


def test_a_zip_that_holds_a_file_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    path.write_bytes(zip_bytes(FILES))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("val/law_val.csv", csv_bytes([question(0)]))
    assert failure(path).message == f"zip file {path} has val/law_val.csv twice."


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    path.write_bytes(zip_bytes({name: data for name, data in FILES.items() if name != "val/law_val.csv"}))
    secret = write_files(tmp_path, {"secret.csv": FILES["val/law_val.csv"]}) / "secret.csv"
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("val/law_val.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    assert failure(path).message == f"val/law_val.csv in zip file {path} is a symbolic link, which is not followed."


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.zip"
    data = bytearray(zip_bytes(FILES))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of every member, in both of its headers
        start = data.find(mark)
        while start >= 0:
            data[start + place] |= 1
            start = data.find(mark, start + 4)
    path.write_bytes(data)
    assert "is encrypted" in failure(path).message


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(zip_bytes(FILES | {"val/law_val.csv": bytes(tables.MAX_FILE_BYTES + 1)}))
    assert path.stat().st_size < 2**20
    assert "is larger than" in failure(path).message


def test_a_zip_with_too_much_in_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.zip"
    path.write_bytes(zip_bytes(FILES))
    monkeypatch.setattr(tables, "MAX_TOTAL_BYTES", 1000)
    assert "more than the 1,000 bytes allowed" in failure(path).message


def test_unusual_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lzma.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    assert "unsupported compression method" in failure(path).message


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"<html>404</html>", zip_bytes(FILES)[:-30], zip_bytes(FILES)[40:]]
)
def test_a_broken_zip_is_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.zip"
    path.write_bytes(data)
    assert str(path) in failure(path).message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(zip_bytes(FILES)) - 1), byte=st.integers(0, 255))
def test_a_zip_with_any_byte_changed_gives_the_same_text_or_an_error(place: int, byte: int, tmp_path: Path) -> None:
    path = tmp_path / "flipped.zip"
    data = bytearray(zip_bytes(FILES))
    data[place] = byte
    path.write_bytes(data)
    try:
        rows = load_tables(str(path), CEVAL, WANTED).rows
    except DataError:
        return
    assert rows == ROWS


def test_a_benchmark_without_a_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="has no sample questions for C-Eval"):
        load_tables("sample", replace(CEVAL, name="nosuch"), WANTED)


def test_the_sample_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "sample/ceval", FILES)
    monkeypatch.setattr("bundle.tasks.sources.local._SAMPLE", tmp_path / "sample")
    tables = load_tables("sample", CEVAL, WANTED)
    assert tables.rows == ROWS
    assert (tables.source, tables.origin) == ("sample", "sample questions in the package")


def test_a_subject_that_the_sample_lacks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "sample/ceval", {"val/law_val.csv": FILES["val/law_val.csv"]})
    monkeypatch.setattr("bundle.tasks.sources.local._SAMPLE", tmp_path / "sample")
    assert "is missing from the sample in the package" in failure("sample").message


def test_reading_files_imports_none_of_the_heavy_packages(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    code = (
        "import json, sys; from bundle.tasks.benchmarks import BENCHMARKS;"
        "from bundle.tasks.sources import load_tables;"
        f"load_tables({str(tmp_path)!r}, BENCHMARKS['ceval'], {WANTED!r}); print(json.dumps(list(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    heavy = {
        "datasets",
        "pyarrow",
        "pandas",
        "numpy",
        "huggingface_hub",
        "httpx",
        "httpx2",
        "aiohttp",
        "urllib.request",
    }
    assert not heavy & set(json.loads(output))
