"""Writes a run in a format and returns what has to be known of the files, for `bundle.cli.report`."""

from collections.abc import Sequence
from pathlib import Path

from bundle.reports.formats.export import Export, write_text
from bundle.runs.recorded_run import RecordedRun


def write_opencompass(run: RecordedRun, path: Path, *, language: str | None = None) -> Sequence[str]:
    """Write OpenCompass's working directory to ``path``."""
    from bundle.reports.formats.opencompass import export_opencompass

    return _write_directory(export_opencompass(run), path)


def write_lm_eval(run: RecordedRun, path: Path, *, language: str | None = None) -> Sequence[str]:
    """Write what the LM Evaluation Harness puts under its ``--output_path`` to ``path``."""
    from bundle.reports.formats.lm_eval import export_lm_eval

    return _write_directory(export_lm_eval(run), path)


def write_model_card(run: RecordedRun, path: Path, *, language: str | None = None) -> Sequence[str]:
    """Write the file ``path`` with the metadata of a model card."""
    from bundle.reports.formats.model_card import export_model_card

    return _write_file(export_model_card(run), path)


def write_submission(run: RecordedRun, path: Path, *, language: str | None = None) -> Sequence[str]:
    """Write the file ``path`` for C-Eval's site; where several tasks have one, each is named after its task."""
    from bundle.reports.formats.submission import export_submission

    return _write_file(export_submission(run), path)


def _write_directory(export: Export, path: Path) -> Sequence[str]:
    export.write_to(path)
    return export.remarks


def _write_file(export: Export, path: Path) -> Sequence[str]:
    if len(export.files) == 1:
        (text,) = export.files.values()
        write_text(path, text)
    else:
        export.write_to(path.parent)
    return export.remarks
