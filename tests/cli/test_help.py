"""The command line as a reader of its help sees it."""

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.models import OptionInfo
from typer.testing import CliRunner

from bundle.cli.main import app
from bundle.errors import UsageError
from bundle.pipeline.options import GROUPS, EvaluationOptions, LocalOptions, RemoteOptions

DOCS = Path(__file__).parents[2] / "docs"
BUNDLE: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = BUNDLE.commands


def help_of(name: str | None = None, columns: int = 80) -> str:
    command = BUNDLE if name is None else COMMANDS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        text: str = command.get_help(command.make_context(name or "bundle", [], resilient_parsing=True))
    return text


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_has_an_example_that_is_valid(name: str) -> None:
    _, found, example = words(help_of(name)).partition("Example: bundle ")
    assert found
    _, *arguments = shlex.split(example)
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 200])
def test_help_fits_the_terminal(name: str, columns: int) -> None:
    longest = max(map(len, help_of(name, columns=columns).splitlines()))
    assert longest <= columns


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda one: one.name or one.callback.__name__)
def test_an_option_whose_metavar_is_its_name_is_named(command: Any) -> None:
    # Else typer 0.27 makes --ENGINE of an option called engine.
    for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
        for declared in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(declared, OptionInfo) and declared.metavar == name.upper():
                assert declared.default is not ...  # typer keeps the first name there


@pytest.mark.parametrize("name", COMMANDS)
def test_it_shows_what_is_typed_and_not_how_it_is_declared(name: str) -> None:
    assert not re.search(r"\[\[|x<|x>|<x|default: \(", help_of(name))


def test_the_documentation_of_options_lists_the_same_ones_in_both_languages_and_all_of_them_exist() -> None:
    listed = []
    for name in ("options.md", "options.zh-CN.md"):
        rows = re.findall(r"^\| (`-.*?) \|", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
        listed.append([re.findall("`(.+?)`", row) for row in rows])
    assert listed[0] == listed[1]
    known = {name for command in ("eval-local", "eval-remote") for one in COMMANDS[command].params for name in one.opts}
    assert {text.split()[0] for row in listed[0] for text in row if text.startswith("-")} <= known


def test_help_uses_the_width_there_is() -> None:
    assert len(help_of("eval-local", columns=120).splitlines()) < 0.8 * len(help_of("eval-local").splitlines())


def test_every_commands_summary_fits_in_the_list_of_80_columns() -> None:
    assert "..." not in help_of().partition("Commands:")[2]


@pytest.mark.parametrize(("name", "served"), [("eval-local", LocalOptions), ("eval-remote", RemoteOptions)])
def test_both_evaluation_commands_have_the_shared_options_and_their_own_under_the_same_headings(
    name: str, served: type[LocalOptions] | type[RemoteOptions]
) -> None:
    text = help_of(name)
    headings = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Arguments", *GROUPS, "Other options"]
    for one in (*fields(EvaluationOptions), *fields(served)):
        names = one.metadata["option"].names or (f"--{one.name.replace('_', '-')}",)
        assert names[0].split("/")[-1] in text
        assert one.metadata["option"].help in words(text)


def test_defaults_are_shown() -> None:
    text = words(help_of("eval-local"))
    for default in ("ceval_gen", "hub", "127.0.0.1", "600", "outputs", "model file or 0"):
        assert f"[default: {default}]" in text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["evaluate", "./ckpt"], "eval-local"),
        (["eval", "./ckpt"], "eval-local"),
        (["eval-locla", "./ckpt"], "eval-local"),
        (["eval_remote", "gpt"], "eval-remote"),
        (["evaluate", "gpt", "--base-url", "http://localhost/v1"], "eval-remote"),
    ],
)
def test_an_unknown_eval_command_suggests_the_right_one(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert isinstance(result.exception, UsageError)
    assert f"`bundle {meant}`" in str(result.exception)


def test_watch_does_not_show_the_options_that_it_refuses(tmp_path: Path) -> None:
    hidden = [one for one in COMMANDS["watch"].params if one.hidden]
    assert {one.name for one in hidden} == {"adapter", "cluster", "junit", "replicas", "resume", "summary"}
    for one in hidden:
        assert one.opts[0] not in help_of("watch")
        ran = CliRunner().invoke(app, ["watch", str(tmp_path), one.opts[0], "2"])
        assert isinstance(ran.exception, UsageError)
        assert f"{one.opts[0]} is for a single checkpoint" in ran.exception.message
