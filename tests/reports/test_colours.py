"""What is coloured can be read, whatever the terminal's background."""

from io import StringIO

import pytest

from bundle.reports.screen.output import COLOURS, console


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def luminance(number: int) -> float:
    """Of one of the 256 colours, from 0 for black to 1 for white, as WCAG defines it."""
    cube = number - 16
    levels = (
        [8 + 10 * (number - 232)] * 3
        if number >= 232
        else [(0, 95, 135, 175, 215, 255)[cube // n % 6] for n in (36, 6, 1)]
    )
    linear = [((level / 255 + 0.055) / 1.055) ** 2.4 if level > 10 else 0 for level in levels]
    return sum(share * level for share, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_can_be_read_on_white_and_on_black(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(variable, raising=False)
    terminal = Terminal()
    console(terminal).print("text", style=name)
    assert f"\x1b[38;5;{COLOURS[name]}m" in terminal.getvalue()
    contrasts = (1.05 / (luminance(COLOURS[name]) + 0.05), (luminance(COLOURS[name]) + 0.05) / 0.05)
    assert min(contrasts) >= (3 if name == "bright_black" else 4), "3 is WCAG's bound for what is no text"
