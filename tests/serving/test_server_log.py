"""The log of a server is read in bounds, and cannot take over the terminal it is shown on."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.serving.server_log import TAIL_BYTES, ServerLog, printable
from bundle.system.text import printable as visible


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_the_file_is_made_for_this_user_alone_even_if_it_was_open_to_all(path: Path) -> None:
    path.touch(0o644)
    ServerLog(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_complete_lines_are_new(path: Path) -> None:
    log = ServerLog(path)
    append(path, b"one\ntw")
    assert log.new_lines() == ["one"]
    assert log.new_lines() == []
    append(path, b"o\r\n10 %\r20 %\r")
    assert log.new_lines() == ["two", "10 %", "20 %"]


def test_the_last_lines_include_one_that_is_not_complete(path: Path) -> None:
    log = ServerLog(path)
    append(path, b"one\ntwo")
    assert log.last_lines() == ["one", "two"]


def test_what_the_file_held_before_belongs_to_another_server(path: Path) -> None:
    append(path, b"old\n")
    log = ServerLog(path)
    append(path, b"new\n")
    assert log.new_lines() == log.last_lines() == ["new"]


def test_of_very_much_only_the_end_is_read(path: Path) -> None:
    log = ServerLog(path)
    append(path, b"first\n" + b"x" * 80 + b"\n" * (10 * TAIL_BYTES) + b"last\n")
    assert log.new_lines() == log.last_lines() == ["last"]
    assert log.new_lines() == []


def test_a_line_without_end_is_passed_over(path: Path) -> None:
    log = ServerLog(path)
    append(path, b"x" * 3 * TAIL_BYTES)
    assert log.new_lines() == []
    append(path, b"\nafter\n")
    assert log.new_lines()[-1] == "after"


def test_long_lines_are_cut(path: Path) -> None:
    log = ServerLog(path)
    append(path, b"y" * 2000 + b"\n")
    assert log.new_lines() == ["y" * 500]


def test_secrets_are_hidden(path: Path) -> None:
    log = ServerLog(path, secrets=("s3cret", ""))
    append(path, b"key=s3cret;\n")
    assert log.last_lines() == ["key=***;"]


def test_a_log_that_was_deleted_is_empty(path: Path) -> None:
    log = ServerLog(path)
    path.unlink()
    assert log.new_lines() == log.last_lines() == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[93m\x1b[1mhttp://127.0.0.1:1\x1b[0m", "http://127.0.0.1:1"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[1;1Hgone\x08\x08", r"gone\x08\x08"),
        ("tab\tand\u3000wide space", "tab and wide space"),
        ("right\u202eto left\x00\x9b31m", r"right\u202eto left\x00\x9b31m"),
        ("加载权重 40 %", "加载权重 40 %"),
    ],
)
def test_colours_and_cursor_movements_are_removed_and_what_else_is_unseen_is_made_visible(
    line: str, shown: str
) -> None:
    assert printable(line) == shown


@given(st.text())
def test_whatever_a_server_prints_what_is_shown_is_printable(line: str) -> None:
    assert visible(printable(line)) == printable(line)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_make_reading_fail(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = ServerLog(path)
    lines = []
    for piece in pieces:
        append(path, piece)
        lines += log.new_lines()
    append(path, b"\n")
    assert lines + log.new_lines() == log.last_lines()
