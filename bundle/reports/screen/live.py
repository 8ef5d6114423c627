"""One line of a terminal that is redrawn in place during a run."""

import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from bundle.reports.screen.progress import Progress

_WIDEST_BAR, _NARROWEST_BAR = 24, 8
_LESS_THAN_A_BAR = 6
"""Labels of this rank and above give way to the bar."""
_REDRAWN_PER_S = 8


class LiveLine:
    """One line: what the server does while it starts, then how far asking is. It fits any width, and is never cut."""

    def __init__(self, console: Console) -> None:
        self._spinner = Spinner("dots")
        self._started = time.monotonic()
        self._activity = "starting"
        self._progress: Progress | None = None
        self._live = Live(
            self,
            console=console,
            transient=True,
            refresh_per_second=_REDRAWN_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def server(self, activity: str) -> None:
        if self._progress is not None:  # a restart, or the end: its time is another
            self._started = time.monotonic()
        self._activity, self._progress = activity, None
        self._live.start()

    def asking(self, progress: Progress) -> None:
        """Show how far asking is, from now on."""
        self._progress = progress
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - 3  # a line as wide as the terminal makes it scroll, also with the ^C of Ctrl-C
        spinner = self._spinner.render(time.monotonic())
        head = spinner.plain if isinstance(spinner, Text) and not options.ascii_only else "*"
        if self._progress is None:
            seconds = f"  {time.monotonic() - self._started:.0f} s"
            said = _fitting(f"{head} {self._activity}", width - len(seconds))
            yield Text.assemble(said, (seconds, "cyan"), no_wrap=True)
            return
        labels, done = self._progress.labels(), self._progress.done / max(self._progress.total, 1)
        while len(labels) > 1:
            room = width - _length(head, labels)
            if room >= 0 and (room > _NARROWEST_BAR or max(labels)[0] < _LESS_THAN_A_BAR):
                break
            labels.remove(max(labels))
        text = Text(f"{head} asking ", no_wrap=True)
        bar = min(_WIDEST_BAR, width - _length(head, labels) - 1)
        if bar >= _NARROWEST_BAR:
            full = round(done * bar)
            stroke = "#" if options.ascii_only else "━"
            text.append(stroke * full, "green").append(stroke.replace("#", ".") * (bar - full), "bright_black").append(
                " "
            )
        yield text.append("  ".join(label for _, label in labels))


def _fitting(said: str, width: int) -> Text:
    """A text that is not longer than ``width`` columns, shortened between words where there are any."""
    text = Text(said)
    words = said.split(" ")
    while text.cell_len > width and len(words) > 2:  # the spinner, and a word
        words.pop()
        text = Text(" ".join(words).rstrip(",;:") + " …")
    text.truncate(max(width, 1), overflow="ellipsis")
    return text


def _length(head: str, labels: list[tuple[int, str]]) -> int:
    return Text(f"{head} asking " + "  ".join(label for _, label in labels)).cell_len
