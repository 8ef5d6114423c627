"""The formats a run can be written in.

To add one, write a module with a function ``export(run, language)`` that returns an `Export`, and add it to `FORMATS`.
A question without a reply is not a wrong answer: where a format cannot say so, the export's remarks must.
"""

import importlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from bundle.errors import RunError
from bundle.runs.files import unwritable
from bundle.system.text import shortened

if TYPE_CHECKING:
    from bundle.runs.recorded_run import RecordedRun

Language = Literal["zh", "en"]

STANDARD_OUTPUT: Final = Path("-")
"""Where a file may be written as well, as in other programs."""


@dataclass(frozen=True, slots=True)
class Export:
    """A run in some format.

    Attributes:
        files: Text by path, relative to the directory it is for, with "/" between parts.
        remarks: What the reader must know and the files do not say, one line each.
        obsolete: Paths of files that an earlier export of the same run may have left and that are now wrong.
    """

    files: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    obsolete: tuple[str, ...] = ()

    def write(self, path: Path, *, is_directory: bool, run: Path) -> None:
        """Write all files, at ``path`` or in it; several where one was expected are put beside it.

        Links in the directory of the run are not followed: it may come from anyone, and they may lead anywhere. Raises
        RunError if one cannot be written.
        """
        directory = path if is_directory else path.parent
        texts = {directory / name: text for name, text in self.files.items()}
        if not is_directory and len(texts) == 1:
            texts = {path: next(iter(self.files.values()))}
        for file, text in texts.items():
            if run in file.parents:
                for one in (file, *file.parents[: file.parents.index(run)]):
                    if one.is_symlink():
                        one.unlink()
            write_text(file, text)
        for name in self.obsolete:
            (directory / name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file and the directories it needs, in UTF-8, with newlines as they are; or to `STANDARD_OUTPUT`.

    Raises RunError if it cannot be written.
    """
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opening a pipe without a reader must not block.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        os.set_blocking(descriptor, True)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(text)
    except OSError as error:
        raise unwritable(path, error) from None


def file_name(name: str) -> str:
    """A name as part of a path: characters with a meaning in paths, shells or CSV become "_", and a long one is cut."""
    return shortened(re.sub(r"[^\w.+@=-]+", "_", name).strip(".") or "_")


def unanswered(missing: int, n: int) -> str:
    """As in "3 of 24 questions have no reply"."""
    return f"{missing} of {n} questions {'has' if missing == 1 else 'have'} no reply"


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        module: The module with its ``export``; imported on use, since some are slow to import.
        name: Name of the file, or of the directory of several files, in the run's directory.
        is_directory: Whether it consists of several files.
        whole_only: Whether it presents scores as the benchmark's, so that a part of it is refused unless allowed.
    """

    module: str
    name: str
    is_directory: bool = False
    whole_only: bool = False

    def write(
        self, run: "RecordedRun", path: Path, *, language: Language | None = None, allow_partial: bool = False
    ) -> tuple[str, ...]:
        """Write a run.

        ``language`` is the one a page opens in, None for the browser's; ``allow_partial`` lets a part of a benchmark be
        written in a format that presents it as the whole. Returns what the reader must know and the files do not say,
        one line each. Raises RunError if the run lacks what the format needs, or a file cannot be written.
        """
        if self.whole_only and any(one.sample_data for one in run.scopes.values()):
            raise RunError(
                f"{run.name} asked the sample questions; {self.name} would present them as the benchmark's.",
                remedy="Run the benchmark itself (--data hub, or your own copy of it), and report that run.",
            )
        if self.whole_only and run.partial and not allow_partial:
            raise RunError(
                f"{run.name} covers only a part of the benchmark: {run.partial}.",
                remedy="Report a run of all questions, or add --allow-partial.",
            )
        export: Export = importlib.import_module(self.module).export(run, language)
        export.write(path, is_directory=self.is_directory, run=run.directory)
        if run.partial and self.name != FORMATS["html"].name:
            return (f"partial: {run.partial}", *export.remarks)
        return export.remarks


FORMATS: Final = {
    "html": Format("bundle.reports.html", "report.html"),
    "opencompass": Format("bundle.reports.formats.opencompass", "opencompass", is_directory=True),
    "model-card": Format("bundle.reports.formats.model_card", "model-card.md", whole_only=True),
    "markdown": Format("bundle.reports.formats.markdown", "summary.md"),
    "junit": Format("bundle.reports.formats.junit", "junit.xml"),
    "submission": Format("bundle.reports.formats.submission", "submission.json"),
}
