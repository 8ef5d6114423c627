"""Finding a run by its directory, its name or the beginning of that, its model's name, or as the latest."""

import contextlib
import glob
import os
import shlex
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS, RECORD
from bundle.system.text import did_you_mean

if TYPE_CHECKING:
    from bundle.runs.record import LocalModelRecord, RemoteModelRecord

OUTPUTS: Final = Path("outputs")
"""Where commands look for runs by default."""
LATEST: Final = Path("latest")
"""Stands for the newest run."""


def is_run(directory: Path) -> bool:
    """Whether a directory has a record, readable or not."""
    return os.path.lexists(directory / RECORD)


def runs_in(out: Path) -> list[Path]:
    """The directories of runs in ``out``, by their names the newest first; none where it cannot be read."""
    try:
        return sorted((path for path in out.iterdir() if is_run(path)), reverse=True)
    except OSError:
        return []


def find_run(path: Path, out: Path) -> Path:
    """Find a run directory. Raises RunError if there is no such run; the message suggests the nearest name.

    Args:
        path: The directory, its name in ``out``, the beginning of one name there, a model's name or its checkpoint's
            directory for the newest of its runs there, or ``latest`` for the newest of all.
    """
    places = [path] if path.is_absolute() else [path, out / path]
    for place in places:
        if is_run(place):
            return place
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises for some names
            continue
        ended_early = (place / PREDICTIONS).exists()
        if not ended_early and (newest := _newest(out, str(path), place.resolve())) is not None:
            return newest
        raise RunError(
            f"{place} is not a run that can be read: it contains no {RECORD}.",
            remedy="The run ended before its first question; see its server.log."
            if ended_early
            else f"No run in {out} evaluated it as a checkpoint, either; `bundle runs` lists the runs.",
        )
    if path == LATEST:
        if (newest := _newest(out)) is None:
            raise RunError(f"There are no runs in {out}.", remedy="Start one: bundle eval-local MODEL_DIR.")
        return newest
    matching = sorted(one.parent for one in out.glob(f"{glob.escape(path.name)}*/{RECORD}"))
    if len(matching) == 1 and path.name == str(path):
        return matching[0]
    if matching:
        raise RunError(
            f"{path} is ambiguous: several runs in {out} start with it.",
            remedy="Name one of them in full.",
            details=[one.name for one in matching],
        )
    if (newest := _newest(out, str(path))) is not None:
        return newest
    found = runs_in(out)
    names = [*dict.fromkeys(model.name for _, model in models_of(found)), *(one.name for one in found)]
    raise RunError(
        f"There is no run {path}, neither at that path nor in {out}.",
        remedy=did_you_mean(path.name, names, "`bundle runs` lists the runs; --out sets where they are.", cutoff=0.5),
    )


def shortest_name(directory: Path, out: Path) -> str:
    """What a run is called on the command line: its name, or its path where commands do not look by themselves."""
    return directory.name if out == OUTPUTS else shlex.quote(str(directory))


def _newest(out: Path, model: str | None = None, checkpoint: Path | None = None) -> Path | None:
    """The newest run of a model of this name or from this directory, or of all; damaged ones have no model."""
    newest_first = sorted(runs_in(out), key=lambda run: (began(run), run.name), reverse=True)
    if model is None:
        return next(iter(newest_first), None)
    for directory, of in models_of(newest_first):
        if of.name == model or (checkpoint is not None and of.directory == checkpoint):
            return directory
    return None


def models_of(runs: Iterable[Path]) -> "Iterator[tuple[Path, RemoteModelRecord | LocalModelRecord]]":
    """The runs that can be read, each with the model it evaluated."""
    from bundle.runs.record import RunRecord  # imported late: slow, and most runs are named in full

    for directory in runs:
        with contextlib.suppress(RunError):
            yield directory, RunRecord.read(directory).model


def began(directory: Path) -> datetime:
    """When a run was started, in local time: from its directory's name, or else from the age of its record."""
    try:
        return datetime.strptime(directory.resolve().name[:15], "%Y%m%d-%H%M%S").astimezone()
    except (ValueError, OverflowError):
        pass
    for path in (directory / RECORD, directory):
        with contextlib.suppress(OSError, ValueError, OverflowError):
            return datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return datetime.fromtimestamp(0).astimezone()
