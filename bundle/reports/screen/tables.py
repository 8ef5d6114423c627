"""Tables on the terminal, in 80 columns: a run's scores, and those of another answer rule."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bundle.reports.health import health_lines
from bundle.reports.screen.output import console, plain_table
from bundle.reports.texts import Words
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.rescoring import Rescored
from bundle.runs.scoring import Score, headlines
from bundle.system.text import one_line, printable
from bundle.tasks.benchmarks import Subject
from bundle.tasks.scores import ScoredTask

FEW_SUBJECTS = 10
"""Up to this many are always all shown."""

_NAME_WIDTH = 40  # cells; what the other columns mostly leave of 80
_EXTREMES = 3
_FEWEST_ANSWERS = 10

Mark = Literal["best", "worst"]
_STYLES: Mapping[Mark, str] = {"best": "green", "worst": "red"}


@dataclass(slots=True)
class _Row:
    name: str
    score: Score
    split: str
    mark: Mark | None = None


def results_table(
    task: ScoredTask, scores: Mapping[str, Score], *, all_subjects: bool, scope: str = "", words: Words | None = None
) -> Group:
    """A task's scores as a table under its title, which may be wider.

    Args:
        all_subjects: Whether to show every subject. Otherwise, if there are more than `FEW_SUBJECTS` and a group has a
            score, only the best and the worst are shown, with the number of ties.
        scope: What part of the task was asked and answered; "" for all of it.
    """
    words = words or Words("en")
    table = plain_table()
    title = Text(printable(task.name), style="bold")
    if scope:
        title.append("\n" + words("screen.partial", what=printable(scope)), style="yellow")
    table.add_column("", max_width=_NAME_WIDTH, overflow="fold")
    table.add_column("", no_wrap=True)
    for header in ("score", "interval", "answered"):
        table.add_column(words(f"screen.{header}"), justify="right", no_wrap=True)
    groups = [name for name in task.groups if name in scores]
    for place, name in enumerate(groups):
        members = len(task.groups[name])
        label = words("screen.group", name=printable(name), n=members)
        table.add_row(Text(label), "", *_cells(scores[name]), style="bold" if place == 0 else None)
    notes = [words("screen.left_out", n=left_out)] if groups and (left_out := len(task.groups) - len(groups)) else []
    rows = _subjects(task, scores, words)
    if groups and len(rows) == 1:
        pass  # the group says it already
    elif all_subjects or not groups or len(rows) <= FEW_SUBJECTS:
        for split in task.splits:
            _add_section(table, [row for row in rows if row.split == split], words)
    else:
        hidden = len(rows) - sum(_add_extremes(table, rows, mark, words) for mark in _STYLES)
        notes.append(words("screen.more", n=hidden))
    return Group(title, table, *map(Text, notes))


def _subjects(task: ScoredTask, scores: Mapping[str, Score], words: Words) -> list[_Row]:
    """All subjects that were asked, with the best and the worst marked."""
    rows = [
        _Row(_name(subject, split if len(task.splits) > 1 else None, words), scores[name], split)
        for split in task.splits
        for subject in task.subjects
        if (name := task.score_name(split, subject.name)) in scores
    ]
    known = [(row.score.accuracy, row) for row in rows if row.score.answered >= _FEWEST_ANSWERS]
    ranked = sorted(accuracy for accuracy, _ in known if accuracy is not None)
    if not ranked or ranked[0] == ranked[-1]:
        return rows
    count = _EXTREMES if len(ranked) > FEW_SUBJECTS else 1
    while ranked[count - 1] >= ranked[-count]:
        count -= 1
    for accuracy, row in known:
        if accuracy is not None:  # ties with the last of the best are among the best
            row.mark = "best" if accuracy >= ranked[-count] else "worst" if accuracy <= ranked[count - 1] else None
    return rows


def _add_extremes(table: Table, rows: Sequence[_Row], mark: Mark, words: Words) -> int:
    """Show a few of the best, best first, or of the worst, worst first, and the number of ties; return how many."""
    found = [row for row in rows if row.mark == mark]
    found.sort(key=lambda row: row.score.accuracy or 0.0, reverse=mark == "best")
    shown, tied = found[:_EXTREMES], found[_EXTREMES:]
    _add_section(table, shown, words)
    if tied:
        table.add_row(words("screen.tied", n=len(tied)), _marked(mark, words), tied[0].score.percent)
    return len(shown)


def _add_section(table: Table, rows: Sequence[_Row], words: Words) -> None:
    table.add_section()
    for row in rows:
        table.add_row(Text(row.name), _marked(row.mark, words), *_cells(row.score))


def _name(subject: Subject, split: str | None, words: Words) -> str:
    english, chinese = printable(subject.english), printable(subject.chinese)
    of = "" if split is None else f" ({printable(split)})"
    if words.language == "zh":
        return chinese + of
    return english + of if chinese == english else f"{english}{of} {chinese}"


def _marked(mark: Mark | None, words: Words) -> Text:
    return Text(words(f"screen.{mark}") if mark else "", style=_STYLES[mark] if mark else "")


def _cells(score: Score) -> tuple[str, str, str]:
    interval = "" if score.interval is None else f"{score.interval.low:.1f}–{score.interval.high:.1f}"
    return score.percent, interval, f"{score.answered}/{score.n}"


def show_rescored(run: RecordedRun, again: Rescored, rule: str | None, *, all_subjects: bool) -> None:
    """Print the new table, and beside each headline score the one on record."""
    terminal, words = console(sys.stdout, width=200), Words()
    for task in run.tasks:
        scores = {own: again.scores[name] for own, name in run.score_names(task).items() if name in again.scores}
        parts = [words.scope(run.scopes[task.name])]
        names = [run.score_names(task)[task.score_name(*member)] for member in task.members()]
        scored, of = (
            sum(found[name].answered for name in names if name in found) for found in (again.scores, run.scores)
        )
        if scored < of:
            parts.append(words("screen.rescored_part", n=scored, of=of))
        partial = words.join(part for part in parts if part)
        terminal.print(results_table(task, scores, all_subjects=all_subjects, scope=partial, words=words))
    recorded = {one.name: one for one in headlines(run.tasks, run.scores)}
    same = {one.name: one for one in headlines(run.tasks, again.recorded)}
    for one in headlines(run.tasks, again.scores):
        what = words("screen.own_rule") if rule is None else one_line(rule, 60)
        before = same[one.name].score.percent
        line = words("screen.rescored", name=one.name, score=one.score.percent, rule=what, before=before)
        if again.cut or again.unsearched:
            line += words("screen.rescored_same", all=recorded[one.name].score.percent)
        terminal.print(Text(one_line(line)))
    parts = [words("screen.rescored_whole", n=again.whole)]
    parts += [words("screen.rescored_cut", n=again.cut)] if again.cut else []
    parts += [words("screen.rescored_timed_out", n=again.unsearched)] if again.unsearched else []
    terminal.print(Text(words.join(parts)))
    for line in health_lines(again.health, words):
        terminal.print(Text(line))
