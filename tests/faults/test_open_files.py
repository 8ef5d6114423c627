"""As many open files as a user may have, or fewer than are needed."""

import resource
import subprocess

import psutil
import pytest

from tests.faults.box import ALL, MIDWAY, Box, Ended
from tests.faults.conftest import MakeBox
from tests.patience import PATIENCE_S


def run_with_open_files(machine: Box, most: int, *options: object) -> Ended:
    result = subprocess.run(
        machine.command(*options),
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )
    return Ended(result.returncode, result.stderr, result.stdout)


def test_too_few_from_the_beginning(box: MakeBox) -> None:
    machine = box("good")
    ended = run_with_open_files(machine, 64)

    assert ended.code == 2
    assert "The open-file limit is 64; at least 128 are needed." in ended.said
    assert "hint: Raise it, for example with `ulimit -n 1024`." in ended.said
    assert "Warning" not in ended.said
    assert not machine.story.lives
    assert not machine.out.exists()


@pytest.mark.slow
def test_fewer_than_the_wanted_concurrency(box: MakeBox) -> None:
    machine = box("good")
    ended = run_with_open_files(machine, 128, "--concurrency", 300)

    assert ended.code == 0
    assert "(requested 300): open-file limit reached" in ended.said
    machine.check(answered=ALL)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can change the limits of another process")
def test_used_up_while_questions_are_asked(box: MakeBox) -> None:
    machine = box("silent; good")
    process = machine.start()
    machine.until_stuck()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (20, 20))  # nearly as many are open already
    psutil.Process(machine.story.lives[0]).kill()

    ended = machine.end_of(process)

    assert ended.code == 3
    assert "Too many open files" in ended.said
    assert ended.cleanly
    machine.check(answered=MIDWAY)
