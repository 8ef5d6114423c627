"""Runs the tokenizer's probe with a directory of its own for code it copies, and leaves neither of them behind.

    PYTHON tokenizer_probe_guard.py PARENT PROBE ARGUMENTS…

Run by path, in the server's own interpreter, which need not be ours: only the standard library is used. The probe is a
child of this process, in the same session. When it ends, this process removes the directory and ends like it. When a
signal asks this process to end, or (on Linux) the process PARENT dies in any way, the probe is killed and the directory
removed. That leaves one ending after which it stays: this process itself being killed with SIGKILL.

The directory is locked while it is in use, so that whoever tidies up can tell.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main() -> None:
    """Do all of it; what is run and with which arguments is on the command line."""
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what is ignored could not be waited for everywhere
    # Signals wait until they are asked for, so that none comes at a bad moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, signal.SIGCHLD))
    signal_at_death_of(int(sys.argv[1]), signal.SIGTERM)
    guard = os.getpid()
    modules = tempfile.mkdtemp(prefix="bundle-tokenizer-")
    try:
        # Never released: the lock ends with the last of the two processes.
        fcntl.flock(os.open(modules, os.O_RDONLY), fcntl.LOCK_EX)
        probe = os.fork()
        if probe == 0:
            run_probe(guard, modules)
            return
        status = wait_for(probe)
    finally:
        if os.getpid() == guard:
            shutil.rmtree(modules, ignore_errors=True)
    end_with(status)


def run_probe(guard: int, modules: str) -> None:
    """Be the probe, until its end or that of ``guard``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_ENDING, signal.SIGCHLD))
    signal_at_death_of(guard, signal.SIGKILL)
    os.environ["HF_MODULES_CACHE"] = modules
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


def wait_for(probe: int) -> int | None:
    """The status the probe ends with; None where it was killed because this process is to end."""
    while True:
        if signal.sigwait((*_ENDING, signal.SIGCHLD)) in _ENDING:
            os.kill(probe, signal.SIGKILL)
            os.waitpid(probe, 0)
            return None
        ended, status = os.waitpid(probe, os.WNOHANG)
        if ended:
            return status


def end_with(status: int | None) -> None:
    """End as the probe did, or else with everything it may have started."""
    if status is None:
        os.killpg(os.getpid(), signal.SIGKILL)
        return
    if os.WIFSIGNALED(status):
        signum = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the probe has left one, if any was wanted
        if signum != signal.SIGKILL:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), signum)
    sys.exit(os.WEXITSTATUS(status))


def signal_at_death_of(parent: int, signum: int) -> None:
    """Have the system send this process ``signum`` when its parent ends, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signum))
    if os.getppid() != parent:  # it ended before that took effect
        sys.exit("the process that started this one has ended")


if __name__ == "__main__":
    main()
