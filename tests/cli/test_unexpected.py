"""Nothing ends in a traceback, with exit code 1 or in an abort."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.cli import main as command_line
from bundle.cli._unexpected import hide_secrets, write_details


def test_an_unexpected_exception_is_one_line_a_file_and_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(**_: object) -> None:
        raise KeyError("sk-0123456789abcdef\nmore")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(command_line, "app", fails)
    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert ended.value.code == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: unexpected error in bundle ")
    (file,) = tmp_path.iterdir()
    assert said.rstrip().endswith(str(file))
    details = file.read_text(encoding="utf-8")
    assert "Traceback" in details
    assert "KeyError" in details
    assert "0123456789" not in said + details


def test_details_go_into_the_run_directory_and_else_to_a_temporary_file(tmp_path: Path) -> None:
    assert write_details(ValueError("x"), tmp_path) == tmp_path / "error.txt"
    elsewhere = write_details(ValueError("x"), tmp_path / "gone")
    assert elsewhere is not None
    assert elsewhere.is_file()
    elsewhere.unlink()


def test_keys_of_the_environment_and_passwords_in_urls_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "first-secret,second-secret")
    shown = hide_secrets("first-secret second-secret http://user:pass@host Bearer abc sk-abc")
    assert shown == "*** *** http://***@host Bearer *** ***"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("tasks", 0), ("runs", 0), ("eval-remote m --base-url http://127.0.0.1:9/v1 --data sample --retries 0", 3)],
)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_change_nothing(closed: str, arguments: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    command = f"exec {sys.executable} -m bundle {arguments} {closed}"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=_environment(), capture_output=True, check=False)
    assert ended.returncode == code


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
