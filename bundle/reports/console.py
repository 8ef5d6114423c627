"""What a person sees while a run goes on and when it is over.

Progress goes to standard error, as a live display on a terminal and as plain lines elsewhere; results go to standard
output. Text that comes from a model, a server or a file is shown as it is, never as markup.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bundle.errors import BundleError
from bundle.evaluation.scoring import Score, mean
from bundle.predictions import Prediction
from bundle.tasks.catalog import Task

if TYPE_CHECKING:
    from bundle.evaluation.evaluation import Evaluation, Results

_PLAIN_INTERVAL_S = 10.0


class Screen:
    """Shows one run. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._out = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
        self._err = Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._lock = threading.Lock()
        self._live = _LiveDisplay(self._err) if self._err.is_terminal else None
        self._counter = _Counter(0)
        self._shown_at = self._started
        self._server_said = ""

    def heading(self, tasks: Sequence[Task], whom: str, sources: Sequence[str]) -> None:
        """Say what is about to be done: which tasks, asked of whom, with questions from where."""
        for task, source in zip(tasks, sources, strict=True):
            self.say(f"{task.name}: {task.description}; data {source}")
        self.say(whom)
        if "sample" in sources:
            self.say(
                "the sample questions show that the pipeline works; the score says nothing about a model's quality"
            )

    def say(self, text: str) -> None:
        """Show one line."""
        with self._lock:
            self._err.print(Text(f"{time.monotonic() - self._started:7.1f} s  {text}"))

    def server(self, activity: str) -> None:
        """Show what the server is doing."""
        if activity == self._server_said:
            return
        self._server_said = activity
        if self._live is not None:
            self._live.server(activity)
        else:
            self.say(f"server: {activity}")

    @contextlib.contextmanager
    def asking(self, total: int, known: int) -> Iterator[None]:
        """While questions are asked: show how many, how fast, how well, and how long it will take.

        Args:
            total: Questions to be asked now.
            known: Questions that were answered before this run was gone on with.
        """
        self._counter = _Counter(total)
        self._shown_at = time.monotonic()
        self.say(f"asking {total} questions" + (f", {known} are answered already" if known else ""))
        if self._live is not None:
            self._live.begin(total)
        try:
            yield
        finally:
            self.say(self._counter.line())

    def answered(self, prediction: Prediction) -> None:
        """Count one outcome."""
        self._counter.count(prediction)
        if self._live is not None:
            self._live.advance(self._counter)
        elif time.monotonic() - self._shown_at >= _PLAIN_INTERVAL_S:
            self._shown_at = time.monotonic()
            self.say(self._counter.line())

    def close(self) -> None:
        """Take the live display away."""
        if self._live is not None:
            self._live.close()

    def results(self, evaluation: "Evaluation", results: "Results") -> None:
        """Show a table for every task, the coverage and the time it took."""
        for task in evaluation.tasks:
            names = evaluation.score_names(task)
            scores = {own: results.scores[name] for own, name in names.items() if name in results.scores}
            self._out.print(_table(task, scores))
            groups_of_all = set(task.splits.values())
            if not groups_of_all & scores.keys():
                parts = [score for name, score in scores.items() if name not in task.groups]
                self._out.print(f"Mean of {len(parts)} of {len(task.subjects)} subjects: {_percent(mean(parts))}")
        for line in _summary(results):
            self._out.print(line)

    def note(self, line: str) -> None:
        """Show one more line of the results."""
        self._out.print(Text(line))

    def last(self, directory: Path) -> None:
        """Show where the run was written; scripts take this last line."""
        self._out.print(Text(str(directory)), soft_wrap=True)

    def error(self, error: BundleError) -> None:
        """Show what went wrong and what to do next."""
        self.close()
        self._err.print(Text(f"error: {error.message}", style="red" if self._err.is_terminal else ""))
        for detail in error.details:
            self._err.print(Text(f"  {detail}"))
        if error.remedy:
            self._err.print(Text(f"what to do: {error.remedy}"))


class _Counter:
    """How a run is going."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.right = self.failed = 0
        self._started = time.monotonic()

    def count(self, prediction: Prediction) -> None:
        self.done += 1
        self.right += prediction.correct is True
        self.failed += prediction.error is not None

    def line(self) -> str:
        parts = [f"{self.done} of {self.total} questions"]
        if (elapsed := time.monotonic() - self._started) > 0 and self.done:
            rate = self.done / elapsed
            parts.append(f"{rate:.1f}/s")
            if self.done < self.total:
                parts.append(f"{(self.total - self.done) / rate:.0f} s left")
        if answered := self.done - self.failed:
            parts.append(f"{100 * self.right / answered:.1f} % right")
        if self.failed:
            parts.append(f"{self.failed} without a reply")
        return ", ".join(parts)


class _LiveDisplay:
    """One line for the server and one for the questions, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._server: TaskID | None = None
        self._questions: TaskID | None = None

    def server(self, activity: str) -> None:
        if self._server is None:
            self._progress.start()
            self._server = self._progress.add_task("server", total=None, line=activity)
        else:
            self._progress.update(self._server, line=activity)

    def begin(self, total: int) -> None:
        self._progress.start()
        if self._server is not None:
            self._progress.update(self._server, visible=False)
        self._questions = self._progress.add_task("asking", total=total, line="")

    def advance(self, counter: _Counter) -> None:
        assert self._questions is not None
        self._progress.update(self._questions, completed=counter.done, line=counter.line())

    def close(self) -> None:
        self._progress.stop()


def _table(task: Task, scores: Mapping[str, Score]) -> Table:
    table = Table(title=task.name, title_justify="left", header_style="bold")
    table.add_column("", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("± s.e.", justify="right", no_wrap=True)
    table.add_column("answered", justify="right", no_wrap=True)
    for group in task.groups:
        if group in scores:
            table.add_row(group, f"{len(task.groups[group])} subjects", *_cells(scores[group]), style="bold")
    for split in task.splits:
        table.add_section()
        for subject in task.subjects:
            name = task.score_name(split, subject.name)
            if name in scores:
                english = subject.english if len(task.splits) == 1 else f"{subject.english} ({split})"
                table.add_row(english, subject.chinese, *_cells(scores[name]))
    return table


def _cells(score: Score) -> tuple[str, str, str]:
    stderr = "" if score.stderr is None else f"{score.stderr:.1f}"
    return _percent(score), stderr, f"{score.answered}/{score.n}"


def _percent(score: Score) -> str:
    return "–" if score.accuracy is None else f"{score.accuracy:.2f}"


def _summary(results: "Results") -> Iterator[str]:
    unasked = results.total - results.answered - results.failed
    coverage = f"{results.answered} of {results.total} questions answered"
    if results.failed:
        coverage += f", {results.failed} without a reply"
    if unasked:
        coverage += f", {unasked} not asked"
    yield coverage
    timing = results.timing
    words = {
        "start_s": "starting the server",
        "load_s": "loading the data",
        "prove_s": "proving the tokenizer after that",
        "ask_s": "asking",
        "stop_s": "stopping it",
        "total_s": "in all",
    }
    yield "; ".join(f"{word} {timing[name]:.1f} s" for name, word in words.items() if name in timing)
    if (seconds := timing.get("ask_s", 0)) > 0 and results.answered:
        prompt, completion = results.tokens["prompt"], results.tokens["completion"]
        yield (
            f"{results.answered / seconds:.1f} questions/s; {prompt} prompt tokens ({prompt / seconds:.0f}/s), "
            f"{completion} generated ({completion / seconds:.0f}/s)"
        )
