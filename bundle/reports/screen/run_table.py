"""The list of runs as a table: in 80 columns on a terminal, whole lines elsewhere."""

import re
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.reports.screen.output import plain_table
from bundle.reports.texts import ENGLISH, Words
from bundle.runs.files import to_json
from bundle.runs.listing import ListedRun, State
from bundle.system.text import one_line

_BEGAN = re.compile(r"\d{8}-\d{6}(?=-)")
_STYLES = {State.DAMAGED: "red", State.RUNNING: "green", State.INCOMPLETE: "yellow", State.CUT_OFF: "yellow"}


def show_runs(console: Console, runs: Sequence[ListedRun], words: Words = ENGLISH, *, failed: bool = False) -> None:
    """Print the list, its legend, and what is wrong with damaged runs.

    ``failed`` also lists those that ended before their first question.
    """
    all_runs, runs = runs, [run for run in runs if failed or run.state is not State.NEVER_ASKED]
    names = _names(runs)
    if runs:
        console.print(_table(runs, names, words, fits=console.is_terminal))
    notes = list(words.parts((name, run.scopes) for name, run in zip(names, runs, strict=True) if run.headlines))
    doubtful = [name for name, run in zip(names, runs, strict=True) if run.doubtful and run.headlines]
    if doubtful:
        notes.append(words("screen.doubtful_runs", names=", ".join(doubtful)))
    notes += [f"{one_line(run.directory.name)}: {one_line(run.fault)}" for run in runs if run.fault]
    if hidden := len(all_runs) - len(runs):
        notes.append(words("screen.failed_runs", n=hidden))
    for note in notes:
        console.print(Text(note))


def _names(runs: Sequence[ListedRun]) -> list[str]:
    """A distinct label for each run: its time, or its whole name where several began in the same second."""
    began = ((run, _BEGAN.match(run.directory.name)) for run in runs)
    stems = [match[0] if match else run.directory.name for run, match in began]
    how_often = Counter(stems)
    return [
        stem if how_often[stem] == 1 else one_line(run.directory.name) for run, stem in zip(runs, stems, strict=True)
    ]


def _table(runs: Sequence[ListedRun], names: Sequence[str], words: Words, *, fits: bool) -> Table:
    table = plain_table()
    overflow = {"overflow": "fold"} if fits else {"no_wrap": True}
    table.add_column(words("screen.run"), no_wrap=True)  # it is typed again, so it is in one piece
    table.add_column(words("screen.model"), **overflow)
    table.add_column(words("screen.task"), **overflow)
    for header in ("score", "answered", "time"):
        table.add_column(words(f"screen.{header}"), justify="right", no_wrap=True)
    best = _best(runs)
    for run, name in zip(runs, names, strict=True):
        answered = "" if run.total is None else f"{run.answered}/{run.total}"
        cells = (name, run.model or "", ", ".join(run.tasks), _scores(run), answered, _duration(run, words))
        table.add_row(
            *(Text(one_line(cell)) for cell in cells), style="bold" if run in best else _STYLES.get(run.state)
        )
    return table


def _best(runs: Sequence[ListedRun]) -> list[ListedRun]:
    """The runs with the highest score of those that can be compared, where there are several."""
    whole: dict[str, list[tuple[float, ListedRun]]] = {}
    for run in runs:
        scores = [one.score.accuracy for one in run.headlines if one.whole and one.score.accuracy is not None]
        if run.state is State.DONE and not run.partial and not run.doubtful and scores:
            asked = to_json([run.tasks, run.asked])
            whole.setdefault(asked, []).append((round(sum(scores), 9), run))
    best = {asked: max(score for score, _ in same) for asked, same in whole.items() if len(same) > 1}
    return [run for asked, highest in best.items() for score, run in whole[asked] if score == highest]


def _scores(run: ListedRun) -> str:
    # The score of a part of a task is not the score that has the task's name.
    marks = ("*" if run.partial else "") + ("?" if run.doubtful else "")
    return " ".join(one.score.percent + marks for one in run.headlines)


def _duration(run: ListedRun, words: Words) -> str:
    if run.seconds is None:
        return words(f"state.{run.state.value}")
    minutes, seconds = divmod(round(run.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
