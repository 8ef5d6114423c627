"""Disks: whether what a run writes can be written, and how much space there is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bundle.doctor.report import size
from bundle.serving.conversion import cache_directory
from bundle.system.findings import Finding, failing, ok, warning
from bundle.tasks.sources.hub import hub_cache

_MB: Final = 10**6
# All questions of C-Eval's three splits with their replies and the server's log are some tens of megabytes.
_RUN_NEEDS: Final = 100 * _MB
_RUN_COMFORTABLE: Final = 1000 * _MB
_HUB_NEEDS: Final = 50 * _MB


def check_output(out: Path) -> Iterator[Finding]:
    """The directory that run directories are made in; it need not exist yet."""
    yield _place("run directories", out, _RUN_NEEDS, "--out DIR chooses another.", fatal=True, much=_RUN_COMFORTABLE)


def check_caches() -> Iterator[Finding]:
    """The places for data sets from the Hub, for converted checkpoints, and for temporary files."""
    hub = "HF_HOME=DIR or HF_HUB_CACHE=DIR chooses another."
    yield _place("the Hub's cache", hub_cache(), _HUB_NEEDS, hub, fatal=False)
    converted = "BUNDLE_CACHE=DIR chooses another. Only the CPU engine needs it, for InternLM2.5."
    yield _place("converted checkpoints", cache_directory(), 0, converted, fatal=False)
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield failing(f"no directory for temporary files: {error.strerror or error}", "Set one with TMPDIR=DIR.")
    else:
        yield _place("temporary files", temporary, _HUB_NEEDS, "TMPDIR=DIR chooses another.", fatal=True)


def _place(what: str, path: Path, needed: int, remedy: str, *, fatal: bool, much: int = 0) -> Finding:
    """Whether a directory exists or can be made, can be written, and has space."""
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
        return bad(f"{what}: the disk of {path} has no room for more files (inodes)", remedy)
    text = f"{what}: {size(free)} free for {path}"
    if free < needed:
        return bad(f"{text}, but {size(needed)} are needed", f"Free some space. {remedy}")
    if free < much:
        return warning(text, f"Free some space. {remedy}")
    return ok(text)


def _nearest_existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that exists."""
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
