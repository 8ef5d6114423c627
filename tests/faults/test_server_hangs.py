"""A server that hangs without closing a connection is ended and started again; one that we were absent from is not."""

import os
import signal
import time

import pytest

from tests.faults.box import ALL, MIDWAY
from tests.faults.conftest import MakeBox
from tests.patience import wait_until

HANG_S = 8
"""Longer than a good server's processes have to wait for a busy machine."""


@pytest.mark.parametrize("health", ["answers", pytest.param("is silent", marks=pytest.mark.slow)])
def test_replies_stop_coming(box: MakeBox, health: str) -> None:
    machine = box("silent; good")
    process = machine.start("--hang-timeout", HANG_S)
    machine.until_stuck()
    if health == "is silent":
        os.kill(machine.story.lives[0], signal.SIGSTOP)

    ended = machine.end_of(process)

    assert ended.code == 0
    assert f"server hangs: no reply, not even a part of one, for {HANG_S} s" in ended.said
    assert f"restarting the server (1 of 2): {ALL - MIDWAY} questions left" in ended.said
    assert machine.restarts == 1
    machine.check(answered=ALL)
    machine.check_only_what_was_open_was_asked_again()


@pytest.mark.slow
def test_request_timeouts_shorter_than_the_hang_timeout_do_not_hide_a_hang(box: MakeBox) -> None:
    machine = box("silent; good")
    ended = machine.run("--hang-timeout", HANG_S, "--request-timeout", 1, "--retries", 10)

    assert ended.code == 0
    assert "server hangs" in ended.said
    machine.check(answered=ALL)


@pytest.mark.slow
def test_this_program_itself_was_suspended(box: MakeBox) -> None:
    """Ctrl-Z, or a laptop that was closed: nobody listened, so nobody can say that the server was silent."""
    machine = box("takes its time")
    process = machine.start("--hang-timeout", HANG_S)
    wait_until(lambda: len(machine.story.asked()) > MIDWAY)

    process.send_signal(signal.SIGSTOP)
    time.sleep(HANG_S + 1)  # longer than the silence that is allowed
    process.send_signal(signal.SIGCONT)

    ended = machine.end_of(process)
    assert ended.code == 0
    assert "hangs" not in ended.said
    assert machine.restarts == 0
    machine.check(answered=ALL)
