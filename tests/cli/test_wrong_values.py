"""A value that an option cannot take is refused in plain words."""

import pytest
from typer.testing import CliRunner

from bundle.cli.main import app

_WRONG = [
    ("--limit", "x", "valid int"),
    ("--limit", "0", "1"),
    ("--concurrency", "1.5", "valid int"),
    ("--temperature", "hot", "valid "),
    ("--temperature", "3", "2"),
    ("--prompt-shape", "falt", "'plain'"),
    ("--stream", "maybe", "'always'"),
]


@pytest.mark.parametrize(("option", "value", "said"), _WRONG)
def test_a_wrong_value_is_named_with_what_would_be_right(option: str, value: str, said: str) -> None:
    result = CliRunner().invoke(app, ["eval-remote", "m", option, value])

    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
    assert said in result.output
    assert "Value error" not in result.output
    assert "Input should" not in result.output


@pytest.mark.parametrize(
    ("option", "said"),
    [("--tp", "No such option: --tp; options of the inference server come after --"), ("--subject", "--subjects")],
)
def test_an_option_that_is_the_servers_is_told_where_it_goes(option: str, said: str) -> None:
    result = CliRunner().invoke(app, ["eval-local", "model", option, "2"])

    assert result.exit_code == 2
    assert said in result.output
    assert ("inference server" in result.output) == (option == "--tp")
