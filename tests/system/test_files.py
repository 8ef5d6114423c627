"""Only regular files are opened: a pipe would wait for ever, and a device may never end."""

import os
import socket
from pathlib import Path

import pytest

from bundle.errors import UsageError
from bundle.system.files import cache_path, read_regular, sync


def refusal(path: Path) -> str:
    with pytest.raises(OSError) as caught:
        read_regular(path, 100)
    return str(caught.value.strerror)


def test_a_regular_file_is_read_and_so_is_one_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 100) == read_regular(tmp_path / "link", 100) == b"text"


def test_a_longer_file_than_there_may_be_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10**12)  # a hole, which nobody could read whole
    with pytest.raises(OSError, match="it is larger than 100 bytes"):
        read_regular(tmp_path / "file", 100)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe, a device or a socket" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read(device: str) -> None:
    assert "is a pipe, a device or a socket" in refusal(Path(device))


def test_a_directory_is_called_one(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "it is a directory"


def test_a_socket_a_circle_of_links_and_nothing_are_errors_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refusal(Path("socket"))
    Path("circle").symlink_to("circle")
    assert "symbolic links" in refusal(Path("circle"))
    assert refusal(Path("nothing")) == "No such file or directory"


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_a_name_that_no_file_can_have_is_an_error_of_the_same_kind(name: str) -> None:
    assert refusal(Path(name))


def test_a_user_without_a_home_is_told_which_variable_names_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UsageError, match="No home directory") as caught:
        cache_path("~/x", "HF_HOME")
    assert caught.value.remedy == "Set HF_HOME to a directory that can be written."


def test_no_more_memory_is_taken_than_a_file_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")

    assert read_regular(tmp_path / "file", 2**50) == b"text"


def test_what_no_file_system_can_be_told_to_write_is_left_to_it() -> None:
    reading, writing = os.pipe()  # fsync refuses it as network drives without one refuse files
    with os.fdopen(reading), os.fdopen(writing):
        sync(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(writing)
