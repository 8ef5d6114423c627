"""Ctrl-C, a closed terminal, a reader that went away. `tests.test_eval_local` has the single signals, in each phase."""

import contextlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.box import ALL, MIDWAY, Box
from tests.faults.conftest import MakeBox
from tests.program import wait_until


def test_interrupted_twice_while_the_server_does_not_listen(box: MakeBox) -> None:
    machine = box("stubborn")
    process = machine.start()
    machine.until_stuck()

    process.send_signal(signal.SIGINT)
    wait_until(lambda: "ending; once more ends it at once" in machine.log.read_text(), 10)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    ended = machine.end_of(process)

    assert time.monotonic() - began < 4  # in order, it takes six seconds to end such a server
    assert ended.code == 130
    assert "interrupted; the answers until then are kept" in ended.said
    assert f"{MIDWAY} of {ALL} questions answered, {ALL - MIDWAY} not asked" in ended.shown
    machine.check(answered=MIDWAY)


@contextlib.contextmanager
def on_a_terminal(machine: Box, *options: object, **how: object) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The program in a terminal's foreground, and the terminal's other end, which is not closed here."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        machine.command(*options),
        env=machine.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs, **how),  # type: ignore[arg-type]
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _take_terminal(terminal: int, *, controlling: bool) -> None:
    if controlling:
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_its_terminal_is_closed(box: MakeBox) -> None:
    """As when an ssh connection breaks: the kernel sends SIGHUP, and nothing can be shown any more."""
    machine = box("silent")
    with on_a_terminal(machine, controlling=True) as (process, terminal):
        machine.until_stuck()

        os.close(terminal)

        assert process.wait(30) == 130
    machine.check(answered=MIDWAY)


def test_its_terminal_is_gone_without_a_word(box: MakeBox) -> None:
    """As after `disown` and logging out: it goes on to the end, with nobody to tell."""
    machine = box("takes its time")
    with on_a_terminal(machine, controlling=False) as (process, terminal):
        wait_until(lambda: len(machine.rows()) >= MIDWAY, 60)

        os.close(terminal)

        assert process.wait(60) == 0
    machine.check(answered=ALL)


def test_it_was_started_with_nohup_and_its_terminal_is_closed(box: MakeBox) -> None:
    machine = box("takes its time")
    with machine.log.open("wb") as log:
        process = subprocess.Popen(
            ["nohup", *machine.command()],
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait_until(lambda: len(machine.rows()) >= MIDWAY, 60)

    process.send_signal(signal.SIGHUP)

    assert machine.end_of(process).code == 0
    machine.check(answered=ALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("where", ["a full disk", "a pipe nobody reads"])
def test_nobody_takes_what_it_shows(box: MakeBox, where: str) -> None:
    machine = box("good")
    if where == "a full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    result = subprocess.run(
        machine.command(),
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(stdout)

    assert result.returncode == 0
    assert "standard output is lost" in result.stderr
    assert "Traceback" not in result.stderr
    machine.check(answered=ALL)
