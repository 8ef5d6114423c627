"""What happens when a run has ended, besides the table: gates, a summary, a file for CI servers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.errors import RunError, UsageError
from bundle.reports.formats import write_text
from bundle.reports.formats.junit import junit
from bundle.reports.formats.markdown import summary
from bundle.reports.gates.gates import Gates, check_gates, compare_with_baseline, gated_exit_code, parse_gates
from bundle.reports.texts import ENGLISH, Words
from bundle.runs.recorded_run import read_recorded_run
from bundle.runs.task_record import TaskRecord


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What to do when a run has ended."""

    gates: Gates = field(default_factory=Gates)
    summary: Path | None = None
    junit: Path | None = None

    def require_possible(self, planned: Sequence[TaskRecord]) -> None:
        """Refuse what a planned run cannot have, before anything is started for it.

        Raises UsageError if a gate is on a score that the run will not have, or only a part of its questions is asked;
        RunError if the baseline was asked something else.
        """
        self.gates.require_whole(planned)
        self.gates.require_scored(planned)
        self.gates.require_comparable(planned)

    def conclude(self, directory: Path, code: int, note: Callable[[str], None], words: Words = ENGLISH) -> int:
        """Check the gates and write the files of a run that has ended, complete or not.

        Calls ``note`` with one line per gate, in the language of ``words``; files are in English. Returns the exit code
        with gates: 1 in place of 0 if one fails. Raises RunError if a file cannot be written, or the run cannot be
        compared with the baseline.
        """
        if self == Conclusion():
            return code
        run = read_recorded_run(directory)
        results = check_gates(self.gates, run)
        for one in results if words.language == "en" else check_gates(self.gates, run, words):
            note(words.labelled(words(f"screen.gate_{'passed' if one.met else 'failed'}"), one.line))
        if self.summary is not None:
            comparison = compare_with_baseline(self.gates, run)
            write_text(self.summary, summary(run, comparison=comparison, gates=results))
        if self.junit is not None:
            write_text(self.junit, junit(run, results, allow_unanswered=self.gates.allow_unanswered))
        return gated_exit_code(code, results)


def parse_conclusion(*, summary: Path | None = None, junit: Path | None = None, **gates: Any) -> Conclusion:
    """Parse the options of the same names; those of gates are as in `parse_gates`.

    Raises UsageError if they cannot be used as given; RunError if the baseline cannot be read.
    """
    for option, path in (("--summary", summary), ("--junit", junit)):
        if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
            what = "a directory" if path.is_dir() else "in a directory that does not exist"
            raise UsageError(f"{option} {path} is {what}.", remedy="Name a file in an existing directory.")
    try:
        return Conclusion(parse_gates(**gates), summary, junit)
    except RunError as error:
        raise RunError(f"--baseline: {error.message}", remedy=error.remedy, details=error.details) from None
