"""The formats a run can be written in.

To add one, write a module with a function ``export(run, language)`` that returns an `Export`, and add it to `FORMATS`.
A question without a reply is not a wrong answer: where a format cannot say so, the export's remarks must.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from bundle.reports.export import Export
    from bundle.runs.recorded_run import RecordedRun

Language = Literal["zh", "en"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        module: The module with its ``export``; imported on use, since some are slow to import.
        name: Name of the file, or of the directory of several files, in the run's directory.
        is_directory: Whether it consists of several files.
    """

    module: str
    name: str
    is_directory: bool = False

    def write(self, run: "RecordedRun", path: Path, *, language: Language | None = None) -> tuple[str, ...]:
        """Write a run.

        Args:
            run: The run.
            path: The file or directory.
            language: The language a page opens in; None for the browser's.

        Returns:
            What the reader must know and the files do not say, one line each.

        Raises:
            RunError: The run lacks what the format needs, or a file cannot be written.
        """
        export: Export = importlib.import_module(self.module).export(run, language)
        export.write(path, is_directory=self.is_directory)
        return export.remarks


FORMATS: Final = {
    "html": Format("bundle.reports.html", "report.html"),
    "opencompass": Format("bundle.reports.formats.opencompass", "opencompass", is_directory=True),
    "model-card": Format("bundle.reports.formats.model_card", "model-card.md"),
    "submission": Format("bundle.reports.formats.submission", "submission.json"),
}
