"""Ctrl-C, a closed terminal, a reader that went away; single signals in each phase are in `tests.pipeline`."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from tests.faults.box import ALL, MIDWAY, whole_rows
from tests.faults.conftest import MakeBox
from tests.openai_api import Call, ScriptedApi, letter, remote_api
from tests.patience import PATIENCE_S, wait_until
from tests.program import results_of
from tests.stand_ins.box import ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_interrupted_twice_while_the_server_ignores_signals(box: MakeBox) -> None:
    machine = box("stubborn")
    process = machine.start()
    machine.until_stuck()

    process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping… press Ctrl-C again to quit now" in machine.log.read_text())
    process.send_signal(signal.SIGINT)
    ended = machine.end_of(process)

    assert "SIGTERM" not in machine.story.all_of("signal")  # in order, it comes after four seconds
    assert ended.code == 130
    assert "interrupted; the answers so far are saved" in ended.said
    assert f"{MIDWAY} of {ALL} questions answered, {ALL - MIDWAY} not asked" in ended.shown
    machine.check(answered=MIDWAY)


def on_a_terminal(
    command: Sequence[str], environment: Mapping[str, str], *, controlling: bool
) -> tuple["subprocess.Popen[bytes]", int]:
    """The program in a terminal's foreground, and the other end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=(lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)) if controlling else None,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours


def drained(terminal: int) -> bool:
    """Read what there is: a program whose terminal takes nothing more waits for it. Always true."""
    with contextlib.suppress(BlockingIOError):
        while os.read(terminal, 2**16):
            pass
    return True


def test_its_terminal_is_closed(box: MakeBox) -> None:
    """As when an ssh connection breaks: the kernel sends SIGHUP, and nothing can be shown any more."""
    machine = box("silent")
    process, terminal = on_a_terminal(machine.command(), machine.environment, controlling=True)
    wait_until(lambda: drained(terminal) and machine.is_stuck())

    os.close(terminal)

    assert process.wait(PATIENCE_S) == 130
    machine.check(answered=MIDWAY)


async def slow_letter(call: Call) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return await letter(call)


def remote(api: ScriptedApi, out: Path) -> list[str]:
    options = ["--base-url", api.url, "--data", "sample", "--concurrency", "4", "--out", str(out)]
    return [sys.executable, "-m", "bundle", "eval-remote", "m", *options]


@pytest.mark.slow
def test_its_terminal_is_gone_without_a_signal(tmp_path: Path) -> None:
    """As after `disown` and logging out: it goes on to the end, with nobody to tell."""
    out = tmp_path / "out"
    with remote_api(slow_letter) as api:
        process, terminal = on_a_terminal(remote(api, out), ENVIRONMENT, controlling=False)
        wait_until(lambda: drained(terminal) and whole_rows(out))

        os.close(terminal)

        assert process.wait(PATIENCE_S) == 0
    assert results_of(out)["coverage"]["answered"] == len(whole_rows(out)) == ALL


@pytest.mark.slow
def test_started_with_nohup_it_survives_its_terminal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with remote_api(slow_letter) as api, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["nohup", *remote(api, out)], env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        wait_until(lambda: whole_rows(out))

        process.send_signal(signal.SIGHUP)

        assert process.wait(PATIENCE_S) == 0
    assert results_of(out)["coverage"]["answered"] == ALL


@pytest.mark.parametrize("where", ["a full disk", pytest.param("a closed pipe", marks=pytest.mark.slow)])
def test_its_output_cannot_be_written(tmp_path: Path, where: str) -> None:
    if where == "a closed pipe":
        reader, stdout = os.pipe()
        os.close(reader)
    elif Path("/dev/full").exists():
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        pytest.skip("only Linux has a file that is always full")
    with remote_api() as api:
        result = subprocess.run(
            remote(api, tmp_path / "out"),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    os.close(stdout)

    assert result.returncode == 0
    assert "cannot write to standard output" in result.stderr
    assert "results.json holds the results" in result.stderr
    assert "Traceback" not in result.stderr
    assert results_of(tmp_path / "out")["coverage"]["answered"] == ALL
