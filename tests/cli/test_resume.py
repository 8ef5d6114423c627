"""``bundle resume``: a run goes on with the options it was started with."""

import json
import os
from pathlib import Path

import pytest

from bundle.cli._command import typed_command
from tests.openai_api import remote_api
from tests.program import call, run
from tests.reports.run_directories import write_run
from tests.stand_ins.box import ROOT

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")} | {
    "PYTHONPATH": str(ROOT),
}


def test_a_run_is_resumed_by_its_name_with_the_options_it_had(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    with remote_api() as api:
        options = [
            "--base-url",
            api.url,
            "--data",
            "sample",
            "--limit",
            "1",
            "--subjects",
            "law,logic",
            "--out",
            "runs",
        ]
        began = call("eval-remote", "the-model", *options, environment=ENVIRONMENT, directory=tmp_path)
        assert began.returncode == 0, began.stderr
        (directory,) = out.iterdir()
        predictions = directory / "predictions.jsonl"
        first, _ = predictions.read_bytes().splitlines(keepends=True)
        predictions.write_bytes(first)
        (directory / "results.json").unlink()
        asked = len(api.bodies)

        resumed = run("resume", directory.name, "--out", out, environment=ENVIRONMENT, directory=ROOT)

        assert resumed.returncode == 0, resumed.stderr
        assert "asking 1 question, 1 answered already" in resumed.stderr
        assert len(api.bodies) == asked + 1
    record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    assert record["command"] == {
        "arguments": ["eval-remote", "the-model", *options],
        "directory": str(tmp_path),
    }
    assert resumed.stdout.splitlines()[-1] == str(directory)


def test_a_run_that_does_not_say_how_it_was_started_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--limit", "1", "--subjects", "law", "--out", tmp_path]
        assert call("eval-remote", "the-model", *options, environment=ENVIRONMENT).returncode == 0
    (directory,) = tmp_path.iterdir()
    record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    del record["command"]
    (directory / "run.json").write_text(json.dumps(record), encoding="utf-8")

    result = call("resume", directory, environment=ENVIRONMENT)

    assert result.returncode == 2
    assert f"Repeat its command with --resume {directory}" in result.stderr


def test_a_run_that_has_lost_replies_is_refused_before_the_command_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeated(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "execv", repeated)
    directory = write_run(tmp_path / "run", {"law": "10"})
    (directory / "predictions.jsonl").write_bytes(b"")

    result = call("resume", directory, environment=ENVIRONMENT)

    assert result.returncode == 2
    assert "has 0 of the 2 replies that results.json counts" in result.stderr


@pytest.mark.parametrize(
    "secret",
    [
        ["--api-keys", "s3cret-s3cret"],
        ["--hf-token=s3cret-s3cret"],
        ["--base-url", "http://user:s3cret-s3cret@127.0.0.1/v1"],
        ["--note", "value-of-a-variable"],
    ],
)
def test_a_command_with_a_secret_is_not_written_down(monkeypatch: pytest.MonkeyPatch, secret: list[str]) -> None:
    monkeypatch.setenv("SOME_API_KEY", "value-of-a-variable")
    monkeypatch.setattr("sys.argv", ["bundle", "eval-local", "m", "--", *secret])
    assert typed_command() is None


def test_names_of_variables_and_of_tokenizers_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["eval-remote", "m", "--api-key-env", "SOME_API_KEY", "--tokenizer", "dir"]
    monkeypatch.setattr("sys.argv", ["bundle", *arguments])
    command = typed_command()
    assert command is not None
    assert command.arguments == tuple(arguments)


def test_a_finished_run_is_shown_again_without_a_server(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--limit", "1", "--subjects", "law", "--out", tmp_path]
        began = call("eval-remote", "the-model", *options, environment=ENVIRONMENT)
    again = run("resume", "--out", tmp_path, environment=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert "nothing left to ask: every question has a reply" in again.stderr
    assert "asking" not in again.stderr
    assert again.stdout == began.stdout
