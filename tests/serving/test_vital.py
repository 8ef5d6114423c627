"""Which ends of a server's processes mean that it answers nothing any more."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from bundle.serving.vital import VitalProcesses
from tests.patience import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows how another's child has ended")

CHILD = "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit({code})); print(1, flush=True)"
WAIT = "while True: signal.pause()"
SERVER = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1], "the engine"], stdout=subprocess.PIPE)
child.stdout.readline()
signal.signal(signal.SIGUSR1, lambda *_: print(child.wait(), flush=True))
print(child.pid, flush=True)
while True:
    signal.pause()
"""


@contextmanager
def server(code: int) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A server that waits for nothing, and its child, which ends with this code at SIGUSR1."""
    script = "\n".join([CHILD.format(code=code), WAIT])
    command = [sys.executable, "-S", "-c", SERVER, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        try:
            yield process, child
        finally:
            with_child = [child] if child.is_running() else []
            process.kill()
            for one in with_child:
                one.kill()


def end(child: psutil.Process, signum: int = signal.SIGUSR1) -> None:
    """And nobody asks how."""
    child.send_signal(signum)
    wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)


def collect(process: "subprocess.Popen[str]") -> None:
    """Let the server collect its child."""
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    assert process.stdout.readline()


@pytest.mark.parametrize(("code", "signum", "told"), [(1, signal.SIGUSR1, 1), (0, signal.SIGKILL, -signal.SIGKILL)])
async def test_one_that_fails_is_told_with_its_end(code: int, signum: int, told: int) -> None:
    with server(code) as (process, child):
        vital = VitalProcesses(process.pid, "the engine$")
        assert vital.look() == {}
        end(child, signum)
        assert vital.look() == {child.pid: told}
        assert await vital.failed_start() == (child.pid, told)
        # So one that failed between a start's last look and its end is not lost.
        assert await vital.end_of_one() == child.pid


def test_a_helper_that_ended_well_does_not_count() -> None:
    with server(0) as (process, child):
        vital = VitalProcesses(process.pid, "the engine$")
        vital.look()
        end(child)
        assert vital.look() == {}


def test_nor_does_one_whose_end_the_server_was_told() -> None:
    with server(1) as (process, child):
        vital = VitalProcesses(process.pid, "the engine$")
        vital.look()
        end(child)
        collect(process)
        assert vital.look() == {}


async def test_of_one_that_lasts_every_end_counts_also_one_that_only_the_server_was_told() -> None:
    with server(0) as (process, child):
        vital = VitalProcesses(process.pid, "the engine$", f"^{re.escape(child.name())}$")
        assert vital.look() == {}
        end(child)
        assert vital.look() == {child.pid: 0}
        collect(process)
        assert await vital.failed_start() == (child.pid, None)


def test_what_is_below_one_that_lasts_may_be_its_fork_or_helper_under_the_same_name() -> None:
    with server(0) as (process, child):
        vital = VitalProcesses(os.getpid(), "the engine$", f"^{re.escape(child.name())}$")
        assert vital.look() == {}
        end(child)
        assert vital.look() == {}
        collect(process)
        assert vital.look() == {}


@pytest.mark.parametrize("pattern", [None, "another engine"])
def test_others_are_not_looked_at(pattern: str | None) -> None:
    with server(1) as (process, child):
        vital = VitalProcesses(process.pid, pattern)
        vital.look()
        end(child)
        assert vital.look() == {}


async def test_once_the_server_is_ready_every_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    look = VitalProcesses.look

    def looks_then_it_ends(vital: VitalProcesses) -> dict[int, int | None]:
        failed = look(vital)
        end(child)
        return failed

    monkeypatch.setattr(VitalProcesses, "look", looks_then_it_ends)
    with server(0) as (process, child):
        assert await VitalProcesses(process.pid, "the engine$").end_of_one() == child.pid
