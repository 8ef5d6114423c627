"""What is wrong with a command line is said as every other error, with a hint and exit code 2."""

import os

import pytest

from tests.program import call


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--limit", "x", "valid int"),
        ("--limit", "0", "1"),
        ("--concurrency", "1.5", "valid int"),
        ("--temperature", "hot", "valid "),
        ("--temperature", "3", "2"),
        ("--stream", "maybe", "'always'"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(option: str, value: str, said: str) -> None:
    result = call("eval-remote", "m", option, value, environment={})

    assert result.returncode == 2
    message, hint = result.stderr.splitlines()
    assert message.startswith(f"error: Invalid value for {option}: ")
    assert said in message
    assert hint.startswith(f"hint: {option} ")
    assert "Value error" not in message
    assert "Input should" not in message


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        ("--frob", "No such option: --frob.", "`bundle --help` lists the options."),
        ("reprt", "No such command: reprt.", "Did you mean `bundle report`?"),
        ("frob", "No such command: frob.", "`bundle --help` lists the commands."),
        ("compare a", "Missing argument: NEW.", "Example: bundle compare sft-1000 sft-2000"),
        ("report a b", "Unexpected argument: b.", "Usage: bundle report [OPTIONS] [RUN]"),
        ("eval-remote m --quick=3", "Option --quick does not take a value.", "--quick: Ask about 260 questions"),
        ("eval-remote m --task", "Option --task requires an argument.", "--task TASK: Task to evaluate"),
        ("eval-remote m --prompt-shape falt", "Invalid value for --prompt-shape: 'falt' is not", "Did you mean flat?"),
        ("eval-remote m --subject law", "No such option: --subject.", "Did you mean --subjects?"),
        ("eval-local m --subject law", "No such option: --subject.", "Did you mean --subjects? Options of the inf"),
        (
            "eval-local m --datasets ceval_gen",
            "No such option: --datasets.",
            "OpenCompass's --datasets is --task here.",
        ),
        ("eval-local m --tp 2", "No such option: --tp.", "Options of the inference server come after `--`."),
    ],
)
def test_wrong_usage_is_an_error_like_any_other(typed: str, said: str, hint: str) -> None:
    result = call(*typed.split(), environment={})

    assert (result.returncode, result.stdout) == (2, "")
    error, remedy = result.stderr.splitlines()
    assert error.startswith(f"error: {said}")
    assert remedy.startswith(f"hint: {hint}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval-remote", ""], "An argument is empty."),
        (["runs", "--rm", " "], "An argument is empty."),  # would be this directory
        (["eval-local", "m", "--out="], "The value of --out is empty."),
        (
            ["eval-remote", os.fsdecode(b"m\xff"), "--base-url", "http://127.0.0.1:9"],
            "The model's name 'm",
        ),
    ],
)
def test_an_argument_that_can_name_nothing_is_named(arguments: list[str], said: str) -> None:
    result = call(*arguments, environment={})

    assert result.returncode == 2
    assert result.stderr.splitlines()[-2].startswith(f"error: {said}")
