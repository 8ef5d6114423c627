"""What a file, a name or a server says reaches no terminal as a command."""

import os
import re
from pathlib import Path

import pytest

from bundle.errors import BundleError
from bundle.reports.screen.console import Screen
from tests.openai_api import remote_api
from tests.program import run
from tests.stand_ins.box import ROOT

EVIL = "\x1b[2J\x1b]0;title\x07\u202eevil\u2066\x9b31m\rover"
SHOWN = r"\x1b[2J\x1b]0;title\x07\u202eevil\u2066\x9b31m\rover"
_ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def assert_harmless(text: str) -> None:
    assert not _ACTS.search(text), ascii(text)


def test_every_line_of_the_screen_is_made_printable(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.say(EVIL)
    screen.server(EVIL)
    screen.note(EVIL)
    screen.error(BundleError(f"message {EVIL}", remedy=f"remedy {EVIL}", details=[f"detail {EVIL}"]))
    captured = capsys.readouterr()
    assert_harmless(captured.out + captured.err)
    assert captured.out.strip() == SHOWN
    for line in ("s  ", "error: message ", "  detail ", "hint: remedy "):
        assert line + SHOWN in captured.err.replace("\n", " ").replace("  ", "  ")


@pytest.mark.slow
def test_names_in_a_users_own_task_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "A", "subject": "la\\u001b[31mw\\u202e"}\n')
    (tmp_path / "own.toml").write_text(
        'description = "a \\u001b[2J task"\n[rows]\nfile = "rows.jsonl"\nsubject = "subject"\n'
        '[prompt]\nuser = "{question}"\n[answer]\nrule = "first_option"\n'
    )
    listed = run("tasks", tmp_path / "own.toml", environment=_environment())
    assert r"la\x1b[31mw\u202e" in listed.stdout
    assert_harmless(listed.stdout + listed.stderr)
    with remote_api() as api:
        options = ["--base-url", api.url, "--task", tmp_path / "own.toml", "--out", tmp_path / "out"]
        asked = run("eval-remote", "m\x1b[2J\u202e", *options, environment=_environment())
    assert asked.returncode == 0, asked.stderr
    assert_harmless(asked.stdout + asked.stderr)


def test_model_names_listed_by_a_server_are_escaped(tmp_path: Path) -> None:
    with remote_api(models=[EVIL, "other"]) as api:
        result = run(
            "eval-remote", "--base-url", api.url, "--data", "sample", "--out", tmp_path, environment=_environment()
        )
    assert result.returncode == 2
    assert_harmless(result.stdout + result.stderr)


@pytest.mark.parametrize("name", [EVIL, b"bad\xff".decode("utf-8", "surrogateescape")])
@pytest.mark.parametrize(
    "command", [["eval-local"], ["eval-remote", "m", "--base-url", "http://127.0.0.1:1", "--data"], ["tasks"]]
)
@pytest.mark.slow
def test_strange_paths_are_escaped(command: list[str], name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.mkdir()
    result = run(*command, path, environment=_environment())
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert_harmless(result.stdout + result.stderr)


def test_a_terminal_without_chinese_gets_escapes_instead_of_an_error() -> None:
    result = run("tasks", "ceval_gen", environment={**_environment(), "PYTHONIOENCODING": "latin-1"})
    assert result.returncode == 0, result.stderr
    assert r"\u6cd5\u5b66" in result.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
