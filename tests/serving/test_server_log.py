"""The log of a server is read in bounds, and cannot take over the terminal it is shown on."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.serving import server_log
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


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """A smaller one, which is sooner reached."""
    monkeypatch.setattr(server_log, "MAX_BYTES", 8 * TAIL_BYTES)
    monkeypatch.setattr(server_log, "_KEPT_BYTES", 2 * TAIL_BYTES)
    return 8 * TAIL_BYTES


def test_of_a_log_without_end_the_beginning_and_the_end_are_kept_and_every_line_is_read_once(
    path: Path, bound: int
) -> None:
    append(path, b"an earlier server\n" * 1000)
    log = ServerLog(path)
    append(path, b"the beginning\n")
    read = log.new_lines()
    line = "{:9} it complains and complains and complains\n"
    lines = [line.format(number) for number in range(40_000)]
    for start in range(0, len(lines), 1000):
        for again in range(8):
            append(path, "".join(lines[start + again * 125 : start + again * 125 + 125]).encode())
            read += log.new_lines()
        assert path.stat().st_size < bound + 10_000

    assert read == ["the beginning", *(one.rstrip() for one in lines)]
    kept = path.read_bytes()
    assert kept.startswith(b"an earlier server\n" * 1000 + b"the beginning\n" + lines[0].encode())
    assert kept.endswith("".join(lines[-1000:]).encode())
    assert b" bytes here]\n" in kept
    assert log.last_lines()[-1] == read[-1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_written_at_once_is_cut_too_and_the_next_server_s_lines_are_its_own(path: Path, bound: int) -> None:
    log = ServerLog(path)
    append(path, b"first\n" + b"x" * 5 * bound + b"\nlast\n")
    assert log.new_lines()[-1] == "last"
    assert path.stat().st_size < bound
    assert log.last_lines()[-1] == "last"
    append(path, b"more\n")
    assert log.new_lines() == ["more"]
    next_one = ServerLog(path)
    append(path, b"another server\n")
    assert next_one.new_lines() == next_one.last_lines() == ["another server"]


def test_a_server_that_goes_on_writing_keeps_its_place(path: Path, bound: int) -> None:
    log = ServerLog(path)
    writing = log.open()  # as the server has it
    os.write(writing, b"y" * (bound + 1) + b"\n")
    log.new_lines()
    os.write(writing, b"after\n")
    os.close(writing)
    assert log.new_lines() == ["after"]
    assert path.read_bytes().endswith(b"after\n")


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_a_log_is_written_to_a_regular_file_only(path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            (path.parent / "elsewhere").touch(0o644)
            path.symlink_to("elsewhere")
        case _:
            path.mkdir()
    with pytest.raises(OSError, match=r"pipe|symbolic link|directory"):
        ServerLog(path)
    if kind == "link":
        assert stat.S_IMODE((path.parent / "elsewhere").stat().st_mode) == 0o644


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
