"""The formats a run can be written in.

To add one, write a module with a function ``export(run, language)`` that returns an `Export`, and add it to `FORMATS`.
A question without a reply is not a wrong answer: where a format cannot say so, the export's remarks must.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from bundle.errors import RunError

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

        Args:
            run: The run.
            path: The file or directory.
            language: The language a page opens in; None for the browser's.
            allow_partial: Whether a part of a benchmark may be written in a format that presents it as the whole.

        Returns:
            What the reader must know and the files do not say, one line each.

        Raises:
            RunError: The run lacks what the format needs, or a file cannot be written.
        """
        if self.whole_only and run.partial and not allow_partial:
            raise RunError(
                f"{run.name} covers only a part of the benchmark: {run.partial}.",
                remedy="Report a run of all questions, or add --allow-partial.",
            )
        export: Export = importlib.import_module(self.module).export(run, language)
        export.write(path, is_directory=self.is_directory)
        if run.partial and self.name != FORMATS["html"].name:
            return (f"partial: {run.partial}", *export.remarks)
        return export.remarks


FORMATS: Final = {
    "html": Format("bundle.reports.html", "report.html"),
    "opencompass": Format("bundle.reports.formats.opencompass", "opencompass", is_directory=True),
    "model-card": Format("bundle.reports.formats.model_card", "model-card.md", whole_only=True),
    "submission": Format("bundle.reports.formats.submission", "submission.json"),
}
