"""How many files and connections this program may have open at once."""

import os
from pathlib import Path

from bundle.errors import UsageError

_ENOUGH = 65_536
_FEWEST = 128
"""About forty are open before the first question is asked: pipes, logs, libraries that are just being read."""
_KEPT_FREE = 32


def allow_open_files() -> None:
    """Raise the soft limit as far as the hard one lets: 256 (macOS) or 1,024 (Linux) are soon used up by connections.

    Raises:
        UsageError: What is allowed then is too little to begin with.
    """
    import resource  # there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # macOS refuses more than its kernel's own limit
    if soft != resource.RLIM_INFINITY and soft < _FEWEST:
        raise UsageError(
            f"This program may have no more than {soft} files open at once, and needs {_FEWEST}.",
            remedy=f"Allow more, as with `ulimit -n {_FEWEST * 8}`.",
        )


def connections_allowed() -> int:
    """How many connections can be opened now and leave enough for everything else."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    return max(soft - _open_now() - _KEPT_FREE, 1)


def _open_now() -> int:
    directory = Path("/proc/self/fd")
    return len(os.listdir(directory)) if directory.is_dir() else _KEPT_FREE  # noqa: PTH208 - only their number
