"""What the operating system allows this process: core dumps, open files, memory, time."""

import os
import resource
from pathlib import Path

from bundle.errors import UsageError

_ENOUGH = 65_536
_FEWEST = 128
"""About forty are open before the first question is asked: pipes, logs, libraries being imported."""
_KEPT_FREE = 32
_LEAST_MEMORY = 512 * 2**20
"""Libraries and threads reserve far more than they use, and libuv aborts where a thread cannot be started."""
_TIME_TO_END_S = 5


def forbid_core_dumps() -> None:
    """Have the kernel write no memory of this process or its children to a file when one crashes.

    It would hold API keys, questions and replies, and of a server all of its weights. The hard limit stays, so that
    whoever debugs a crash can still allow it for a process of their own.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def allow_open_files() -> None:
    """Raise the soft limit as far as the hard one allows: connections soon use up 256 (macOS) or 1,024 (Linux).

    Raises UsageError if what is allowed then is not enough to begin with.
    """
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
            f"The open-file limit is {soft}; at least {_FEWEST} are needed.",
            remedy=f"Raise it, for example with `ulimit -n {_FEWEST * 8}`.",
        )


def require_memory() -> None:
    """Raises UsageError if ``ulimit -v`` allows less than a run needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_MEMORY:
        raise UsageError(
            f"The memory limit is {soft >> 20} MB; at least {_LEAST_MEMORY >> 20} MB are needed.",
            remedy="Raise it, for example with `ulimit -v unlimited`.",
        )


def expect_end_of_cpu_time() -> None:
    """Have SIGXCPU leave some seconds to end in order: ``ulimit -t`` has the kernel kill at the same moment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_CPU, (max(1, hard - _TIME_TO_END_S), hard))


def has_cpu_time_limit() -> bool:
    """Whether SIGXCPU comes from the kernel, once a second."""
    return resource.getrlimit(resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY


def connections_allowed() -> int:
    """How many connections can be opened now, leaving enough files for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    directory = Path("/proc/self/fd")
    open_now = len(os.listdir(directory)) if directory.is_dir() else _KEPT_FREE  # noqa: PTH208 - only their number
    return max(soft - open_now - _KEPT_FREE, 1)
