"""Errors on a terminal: what happened and what to do are what is seen last."""

import re
from io import StringIO

import pytest

from bundle.errors import BundleError
from bundle.reports.screen.console import Screen


class Terminal(StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def shown(error: BundleError, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    Screen(err=terminal).error(error)
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()]


def test_lines_are_wrapped_between_words_under_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    error = BundleError("a message of more words than one line holds", remedy="a remedy that is as long as that")
    assert shown(error, monkeypatch) == [
        "error: a message of more words than one",
        "       line holds",
        "hint: a remedy that is as long as that",
    ]


def test_the_end_of_a_servers_log_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = ["one"], ["one", "two", "three", "four"]
    assert shown(BundleError("m", remedy="r", details=few), monkeypatch) == ["error: m", "  one", "hint: r"]
    assert shown(BundleError("m", remedy="r", details=many), monkeypatch) == [
        *(f"  {line}" for line in many),
        "error: m",
        "hint: r",
    ]
