"""What another answer rule makes of a run, on the terminal."""

import sys

from rich.text import Text

from bundle.reports.health import health_lines
from bundle.reports.screen.output import console
from bundle.reports.screen.tables import percent, results_table
from bundle.runs.recorded_run import RecordedRun
from bundle.runs.rescoring import Rescored
from bundle.runs.scoring import headlines
from bundle.system.text import one_line, plural


def show(run: RecordedRun, again: Rescored, rule: str | None, *, all_subjects: bool) -> None:
    """Print the new table, and beside each headline score the one on record."""
    terminal = console(sys.stdout, width=200)
    for task in run.tasks:
        scores = {own: again.scores[name] for own, name in run.score_names(task).items() if name in again.scores}
        partial = run.scopes[task.name].text
        terminal.print(results_table(task, scores, all_subjects=all_subjects, scope=partial))
    recorded = {one.name: one for one in headlines(run.tasks, run.scores)}
    for one in headlines(run.tasks, again.scores):
        what = "the task's own rule" if rule is None else one_line(rule, 60)
        line = f"{one.name}: {percent(one.score)} under {what}, {percent(recorded[one.name].score)} on record"
        terminal.print(Text(one_line(line)))
    left_out = f"; {plural(again.cut, 'reply', 'replies')} stopped early and left out" if again.cut else ""
    if again.unsearched:
        left_out += f"; {again.unsearched} in which the rule found no end"
    terminal.print(Text(f"{plural(again.whole, 'whole reply', 'whole replies')} scored{left_out}"))
    for line in health_lines(again.health):
        terminal.print(Text(line))
