"""Whether somebody holds a lock on a file or directory."""

import fcntl
import os
from pathlib import Path


def is_held(path: Path, *, shared_too: bool = False) -> bool | None:
    """Whether a process holds ``path``; None where that cannot be told, as on a file system without locks.

    The look is a lock for an instant, which who wants one for good must let pass.

    Args:
        path: A file or directory; what is not there is not held.
        shared_too: Whether a shared lock counts as well.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if shared_too else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
