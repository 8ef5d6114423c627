"""Record what a run shows on a terminal, as the picture in the README.

    python docs/images/terminal.py docs/images/terminal.svg bundle eval-local checkpoints/tiny --data sample

Runs the command on a pseudo-terminal and writes its last screen, lines that were redrawn in place left out.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 60
_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n")


def record(command: list[str]) -> str:
    """Run a command on a terminal; return everything it wrote, and end with its exit code if it fails."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = dict(os.environ, TERM="xterm-256color", COLUMNS=str(COLUMNS))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = bytearray()
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux's way to say that the other end is closed
                break
            written += part
    os.close(ours)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}:\n{written.decode(errors='replace')}")
    return written.decode()


def screen(written: str) -> str:
    """The lines that stand on the terminal at the end, colours included."""
    lines, row, place = [""], 0, 0
    for match in _CONTROL.finditer(written):
        lines[row] += written[place : match.start()]
        place = match.end()
        number, letter = match[1], match[2]
        if match[0] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif letter == "A":
            row = max(row - int(number or 1), 0)
        elif letter == "K":
            lines[row] = ""
        elif letter == "m":
            lines[row] += match[0]
    return "\n".join(lines).strip("\n")


def main() -> None:
    """Record a command."""
    target, *command = sys.argv[1:]
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    console.print(f"[bold green]$[/] [bold]{' '.join(command)}[/]", highlight=False)
    console.print(Text.from_ansi(screen(record(command)) + "\n"))  # the picture cuts what is below its last line
    # Fonts from elsewhere are not loaded in a picture; the reader's own monospaced one is taken.
    picture = re.sub(r"\s*@font-face \{.*?\}", "", console.export_svg(title=command[0]), flags=re.DOTALL)
    Path(target).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
