"""Disks: whether what a run writes can be written, and how much room there is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.doctor.words import size

_MB: Final = 10**6
# All questions of C-Eval's three splits with their replies and the server's log are some tens of megabytes.
_RUN_NEEDS: Final = 100 * _MB
_RUN_COMFORTABLE: Final = 1000 * _MB
_HUB_NEEDS: Final = 50 * _MB


def look_at_output(out: Path) -> Iterator[Finding]:
    """The directory that run directories are made in; it need not be there yet."""
    yield _place("run directories", out, _RUN_NEEDS, _RUN_COMFORTABLE, "Choose another place with --out.", fatal=True)


def look_at_caches(hub: Path, rewritten: Path) -> Iterator[Finding]:
    """The places for data sets from the hub, for rewritten checkpoints, and for temporary files."""
    yield _place(
        "the hub's cache", hub, _HUB_NEEDS, _HUB_NEEDS, "HF_HOME=DIR or HF_HUB_CACHE=DIR names another.", fatal=False
    )
    yield _place(
        "rewritten checkpoints",
        rewritten,
        0,
        0,
        "BUNDLE_CACHE=DIR names another. Only the CPU engine needs it, for InternLM2.5.",
        fatal=False,
    )
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield failing(f"there is no place for temporary files: {error.strerror or error}", "TMPDIR=DIR names one.")
    else:
        yield _place("temporary files", temporary, _HUB_NEEDS, _HUB_NEEDS, "TMPDIR=DIR names another.", fatal=True)


def _place(what: str, path: Path, needed: int, comfortable: int, remedy: str, *, fatal: bool) -> Finding:
    """Whether a directory is there or can be made, takes a file, and has room."""
    bad = failing if fatal else warning
    try:
        existing = _nearest_existing(path.expanduser())
        if not existing.is_dir():
            return bad(f"{what}: {existing} is a file", remedy)
        _write_in(existing)
        free = shutil.disk_usage(existing).free
        status = os.statvfs(existing)
    except OSError as error:
        return bad(f"{what}: {path} cannot be written: {error.strerror or error}", remedy)
    if status.f_files and not status.f_favail:
        return bad(f"{what}: the disk of {path} takes no more files (inodes)", remedy)
    text = f"{what}: {size(free)} free for {path}"
    if free < needed:
        return bad(f"{text}, and {size(needed)} are wanted", f"Free some space. {remedy}")
    if free < comfortable:
        return warning(text, f"Free some space. {remedy}")
    return ok(text)


def _nearest_existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there."""
    for candidate in (path.absolute(), *path.absolute().parents):
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return candidate
    return Path("/")


def _write_in(directory: Path) -> None:
    """Write a file that has no name or loses it at once, so that nothing stays.

    Raises:
        OSError: It cannot be written.
    """
    with tempfile.TemporaryFile(dir=directory, prefix=".bundle-doctor-") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
