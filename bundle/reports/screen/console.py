"""What is shown during a run and at its end.

Progress goes to standard error, as a live display on a terminal and as plain lines elsewhere; results go to standard
output. Text from models, servers and files is made printable (`bundle.system.text`) and never taken for markup.

rich is imported late: it is slow, and the server should start first.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bundle.errors import BundleError
from bundle.reports.health import health_lines, no_reply_lines
from bundle.reports.screen.output import console, steady
from bundle.reports.screen.progress import Progress
from bundle.reports.texts import Words
from bundle.runs.predictions import Prediction
from bundle.runs.scoring import headlines
from bundle.system.text import plural, printable
from bundle.tasks.scores import ScoredTask, score_names

if TYPE_CHECKING:
    from rich.console import Console

    from bundle.reports.formats import Language
    from bundle.reports.screen.live import LiveLine
    from bundle.runs.health import Health
    from bundle.runs.results import Results
    from bundle.runs.scope import Scope

_PLAIN_INTERVAL_S = 10.0
_FEW_DETAILS = 3
_PHASES = ("start_s", "load_s", "prove_s", "ask_s", "repeat_s", "stop_s", "total_s")


class Screen:
    """Shows one run. Its methods may be called from any thread.

    Args:
        out: Where results go; None for standard output.
        err: Where progress goes; None for standard error.
        language: What tables and results are in; None for the locale's.
    """

    def __init__(
        self, *, out: TextIO | None = None, err: TextIO | None = None, language: "Language | None" = None
    ) -> None:
        self.words = Words(language)
        self._streams = out, err
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._live: LiveLine | None = None
        self._progress = Progress(0)
        self._shown_at = self._started

    @cached_property
    def _stderr(self) -> TextIO:
        return steady(self._streams[1] or sys.stderr)

    @cached_property
    def _out(self) -> "Console":
        def lost(error: OSError) -> None:
            self.say(f"cannot write to standard output ({error.strerror}); results.json holds the results")

        return console(steady(self._streams[0] or sys.stdout, lost))

    @cached_property
    def _err(self) -> "Console":
        return console(self._stderr)

    def heading(self, tasks: Sequence[ScoredTask], whom: str, sources: Sequence[str]) -> None:
        """Announce the run: tasks, data, and model."""
        for task, source in zip(tasks, sources, strict=True):
            self.say(f"{task.name}: {task.description}; data {source}")
        self.say(whom)

    def say(self, text: str) -> None:
        stamp, text = f"{time.monotonic() - self._started:7.1f} s  ", printable(text)
        with self._lock:
            if self._stderr.isatty():
                _print_indented(self._err, text, len(stamp), stamp)
            else:
                print(stamp + text, file=self._stderr, flush=True)

    def server(self, activity: str) -> None:
        if (live := self._live_line()) is not None:
            live.server(printable(activity))
        else:
            self.say(activity)

    @contextlib.contextmanager
    def asking(self, progress: Progress, known: int) -> Iterator[None]:
        """Show progress while questions are asked: how many, how fast, how well, and the time left.

        Args:
            progress: Knows how many there are, and counts what is `answered`.
            known: Questions answered before, in a run that is resumed.
        """
        self._progress = progress
        self._shown_at = time.monotonic()
        self.say(f"asking {plural(progress.total, 'question')}" + (f", {known} answered already" if known else ""))
        if (live := self._live_line()) is not None:
            live.asking(progress)
        try:
            yield
        finally:
            self.say(self._progress.line())

    def answered(self, prediction: Prediction) -> None:
        self._progress.count(prediction)
        due = time.monotonic() - self._shown_at >= _PLAIN_INTERVAL_S and self._progress.done < self._progress.total
        if self._live is None and due:
            self._shown_at = time.monotonic()
            self.say(self._progress.line())

    def _live_line(self) -> "LiveLine | None":
        """The line that is redrawn; None without a terminal."""
        if self._live is None and self._err.is_terminal:
            from bundle.reports.screen.live import LiveLine  # imported late: slow

            self._live = LiveLine(self._err)
        return self._live

    def close(self) -> None:
        """Remove the line that is redrawn."""
        if self._live is not None:
            self._live.close()

    def results(
        self,
        tasks: Sequence[ScoredTask],
        results: "Results",
        health: "Health",
        *,
        all_subjects: bool = False,
        scopes: "Mapping[str, Scope] | None" = None,
    ) -> None:
        """Show a table for every task, with groups and some or all subjects, then the measurement's health and timing.

        ``scopes``: what part of every task was asked, by its name.
        """
        from bundle.reports.screen.tables import results_table  # imported late, for rich

        names, words = score_names(tasks), self.words
        for task in tasks:
            scores = {own: results.scores[name] for own, name in names[task.name].items() if name in results.scores}
            scope = words.scope(scopes[task.name]) if scopes and task.name in scopes else ""
            self.set_apart()
            self._out.print(results_table(task, scores, all_subjects=all_subjects, scope=scope, words=words))
            if not set(task.splits.values()) & scores.keys():
                for one in headlines([task], scores):
                    name = one.name if one.whole else words("screen.mean", n=one.asked[0], all=one.asked[1])
                    key, ends = "screen.headline", {}
                    if (interval := one.score.interval) is not None:
                        key, ends = "screen.headline_interval", {"low": interval.low, "high": interval.high}
                    self._out.print(words(key, name=name, score=one.score.percent, **ends), markup=False)
        self.set_apart()
        for place, line in enumerate(health_lines(health, words)):
            self._print(line, style="" if place or health.is_ok else "yellow")
        coverage, *facts = _summary(results, words)
        for line in (coverage, *no_reply_lines(health, words=words), *facts):
            self._print(line)

    def set_apart(self) -> None:
        """Leave a line empty on a terminal; where output is read by programs, every line says something."""
        if self._out.is_terminal:
            self._out.print()

    def _print(self, line: str, *, style: str = "") -> None:
        if self._out.is_terminal:
            text = line.lstrip()
            _print_indented(self._out, text, len(line) - len(text), style=style)
        else:
            self._out.print(line, markup=False)

    def note(self, line: str) -> None:
        self._out.print(printable(line), markup=False)

    def last(self, directory: Path) -> None:
        """Show the run's directory; scripts read this last line."""
        # On a terminal a name must not act; a script needs it as it is.
        shown = printable(str(directory)) if self._out.is_terminal else str(directory)
        self._out.print(shown, markup=False, soft_wrap=True)

    def error(self, error: BundleError) -> None:
        """Show an error and its hint; on a terminal last, where many details would push it off the screen."""
        self.close()
        message, remedy = printable(error.message), printable(error.remedy or "")
        details = [printable(detail) for detail in error.details]
        if not self._err.is_terminal:
            for line in (
                f"error: {message}",
                *(f"  {detail}" for detail in details),
                *([f"hint: {remedy}"] * bool(remedy)),
            ):
                self._err.print(line, markup=False)
            return
        many = len(details) > _FEW_DETAILS
        for detail in details if many else ():
            _print_indented(self._err, detail, 2, style="dim")
        _print_indented(self._err, message, len("error: "), "error: ", style="red")
        for detail in () if many else details:
            _print_indented(self._err, detail, 2)
        if remedy:
            _print_indented(self._err, remedy, len("hint: "), "hint: ")


def _print_indented(console: "Console", text: str, indent: int, head: str = "", *, style: str = "") -> None:
    """Print a text whose further lines stand under the beginning of its first."""
    from rich.padding import Padding  # imported late: slow
    from rich.text import Text

    if head:
        first, *rest = Text(text, style=style).wrap(console, max(console.width - indent, 1))
        console.print(Text(head, style=style) + first, soft_wrap=True)
        if not rest:
            return
        text = text[len(first) :].lstrip()
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent)))


def _summary(results: "Results", words: Words) -> Iterator[str]:
    counts = results.coverage
    coverage = words("screen.coverage", answered=counts.answered, total=counts.total)
    if counts.failed:
        coverage += words("screen.failed", n=counts.failed)
    if unasked := counts.total - counts.answered - counts.failed:
        coverage += words("screen.unasked", n=unasked)
    yield coverage
    timing = results.timing
    sessions = words("screen.sessions", n=results.sessions) if results.sessions > 1 else ""
    yield words.join(words(f"screen.{name}", s=timing[name]) for name in _PHASES if name in timing) + sessions
    if (seconds := timing.get("ask_s", 0)) > 0 and results.timed_answers != 0 and counts.answered:
        yield _speed(results, seconds, words)
    if (rate := results.server.get("prefix_cache_hit_rate")) is not None:
        yield words("screen.cache", percent=100 * rate)
    if (again := results.repeat) is not None:
        answers, replies = again.answers_changed, again.replies_changed
        changed = words("screen.repeat", n=again.questions, times=again.times, answers=answers, replies=replies)
        yield changed + (words("screen.repeat_failed", n=again.failed) if again.failed else "")


def _speed(results: "Results", seconds: float, words: Words) -> str:
    timed = results.coverage.answered if results.timed_answers is None else results.timed_answers
    speed = words("screen.speed", speed=timed / seconds)
    prompt, completion = results.tokens["prompt"], results.tokens["completion"]
    if cut := results.tokens["cut_replies"]:
        chunks = results.tokens.get("chunks_of_cut_replies")
        counted = results.coverage.answered - results.tokens["uncounted_replies"]
        stopped = words("screen.cut_after", n=cut, chunks=chunks) if chunks else words("screen.cut", n=cut)
        return speed + stopped + (words("screen.cut_others", n=counted, completion=completion) if counted else "")
    if not prompt and not completion:
        return speed  # the server does not count them
    tokens = {"prompt": prompt, "completion": completion}
    if timed < results.coverage.answered:
        return speed + words("screen.tokens_all", **tokens)
    speeds = {"prompt_speed": prompt / seconds, "completion_speed": completion / seconds}
    return speed + words("screen.tokens", **tokens, **speeds)
