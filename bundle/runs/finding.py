"""Finding a run by its directory, its name, or the beginning of its name."""

import glob
import os
from pathlib import Path

from bundle.errors import RunError
from bundle.runs.files import PREDICTIONS, RECORD
from bundle.system.text import did_you_mean


def is_run(directory: Path) -> bool:
    """Whether a directory has a record, readable or not."""
    return os.path.lexists(directory / RECORD)


def find_run(path: Path, out: Path) -> Path:
    """Find a run directory.

    Args:
        path: The directory, its name in ``out``, or the beginning of one name there.
        out: The directory that contains runs.

    Raises:
        RunError: There is no such run; the message suggests the nearest name.
    """
    places = [path] if path.is_absolute() else [path, out / path]
    for place in places:
        if is_run(place):
            return place
    for place in places:
        if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises for some names
            raise RunError(
                f"{place} is not a run that can be read: it contains no {RECORD}.",
                remedy="The run ended before its first question; see its server.log."
                if (place / PREDICTIONS).exists()
                else "Name the directory that the run printed as its last line.",
            )
    matching = sorted(one.parent for one in out.glob(f"{glob.escape(path.name)}*/{RECORD}"))
    if len(matching) == 1 and path.name == str(path):
        return matching[0]
    if matching:
        raise RunError(
            f"{path} is ambiguous: several runs in {out} start with it.",
            remedy="Name one of them in full.",
            details=[one.name for one in matching],
        )
    names = [one.parent.name for one in out.glob(f"*/{RECORD}")]
    raise RunError(
        f"No run {path}, neither at that path nor in {out}.",
        remedy=did_you_mean(path.name, names, "`bundle runs` lists the runs; --out sets where they are.", cutoff=0.5),
    )
