"""The guardian by itself: a process that is told what to start, and lets nothing outlive it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from bundle.serving.supervisor import _free_port
from bundle.system import guardian
from bundle.system.guardian import Process, family
from tests.patience import PATIENCE_S, fastest, wait_until
from tests.serving.stand_in import SERVER, Stage

MARK = "0123456789abcdef"


class Running:
    """A guardian, and what it reports."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=os.open(stage.file("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            start_new_session=True,
        )
        self.stdin = cast(IO[bytes], self.process.stdin)
        self.stdout = cast(IO[bytes], self.process.stdout)

    def start(self, *options: str, environment: dict[str, str] | None = None) -> int:
        """Start the stand-in server, wait for what it prints first, and return its pid."""
        stand_in = [sys.executable, "-S", str(SERVER), "--host", "127.0.0.1", "--port", str(_free_port("127.0.0.1"))]
        self.say_what_to_start([*stand_in, "--model", "m", "--tag", str(self.stage.directory), *options], environment)
        started = self.report()
        assert started["event"] == "started"
        wait_until(lambda: "starting" in self.stage.read("log"))
        return int(started["pid"])

    def say_what_to_start(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        spec = {
            "command": command,
            "environment": {**os.environ, "STAND_IN_KEY": "k", **(environment or {})},
            "mark": MARK,
            "parent": os.getpid(),
        }
        self.say(json.dumps(spec))

    def say(self, line: str) -> None:
        self.stdin.write(line.encode() + b"\n")
        self.stdin.flush()

    def report(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.stdout.readline()))

    def end(self) -> None:
        self.stdin.close()
        self.stdout.close()
        self.process.wait(PATIENCE_S)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def running(stage: Stage) -> Iterator[Running]:
    running = Running(stage)
    yield running
    running.end()
    assert not stage.kill_what_is_left()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_knows_the_standard_library_only_and_starts_at_once() -> None:
    def starts_and_ends() -> float:
        began = time.monotonic()
        ended = subprocess.run([sys.executable, "-I", "-S", guardian.__file__], input=b"", timeout=PATIENCE_S)
        assert ended.returncode == 0
        return time.monotonic() - began

    assert fastest(starts_and_ends, below=2) < 2  # Some hundredths of a second, unless the machine is busy.


def test_the_server_has_a_session_no_terminal_no_input_and_no_ignored_signals(running: Running) -> None:
    server = running.start()
    assert os.getsid(server) == server
    assert str(Path(f"/proc/{server}/fd/0").readlink()) == "/dev/null"
    assert int(status_of(server)["SigIgn"], 16) & (1 << (signal.SIGINT - 1)) == 0
    assert int(status_of(server)["SigBlk"], 16) == 0


def test_the_server_inherits_nothing_open_but_its_log(running: Running) -> None:
    server = running.start("--hang")
    targets = {str(fd.readlink()) for fd in Path(f"/proc/{server}/fd").iterdir()}
    assert targets == {"/dev/null", running.stage.file("log")}


def test_what_it_is_told_reaches_the_environment_and_no_argument_list(running: Running) -> None:
    server = running.start(environment={"SOME_KEY": "hush-hush"})
    assert b"SOME_KEY=hush-hush" in Path(f"/proc/{server}/environ").read_bytes()
    for pid in (server, running.process.pid):
        assert b"hush-hush" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_command_that_cannot_be_started_is_reported(running: Running) -> None:
    running.say_what_to_start(["/no/such/server"])
    assert running.report() == {"event": "failed", "error": "[Errno 2] No such file or directory: '/no/such/server'"}


def test_the_server_is_asked_twice_then_told_then_killed(running: Running, stage: Stage) -> None:
    running.start("--record-signals", stage.file("asked"), "--hang")
    running.say("stop")
    assert running.report() == {"event": "exited", "returncode": -signal.SIGKILL}
    assert running.report() == {"event": "stopped", "left": []}
    assert stage.read("asked").split() == ["SIGINT", "SIGINT", "SIGTERM"]


def test_a_server_that_ends_when_asked_is_not_waited_for_any_longer(stage: Stage) -> None:
    def ends_when_asked() -> float:
        running = Running(stage)
        running.start()
        began = time.monotonic()
        running.say("stop")
        assert running.report()["event"] == "exited"
        assert running.report() == {"event": "stopped", "left": []}
        took = time.monotonic() - began
        running.end()
        return took

    patience = guardian.ASK_TO_END[0][1]
    assert fastest(ends_when_asked, below=patience) < patience
    assert not stage.kill_what_is_left()


def test_a_second_order_can_cut_the_waiting_short(running: Running, stage: Stage) -> None:
    running.start("--record-signals", stage.file("asked"), "--hang")
    running.say("stop")
    wait_until(lambda: stage.read("asked"))
    running.say("kill")
    assert running.report() == {"event": "exited", "returncode": -signal.SIGKILL}
    assert running.report() == {"event": "stopped", "left": []}
    assert "SIGTERM" not in stage.read("asked")


def test_when_its_input_ends_everything_ends(running: Running, stage: Stage) -> None:
    running.start("--worker", "session")
    running.stdin.close()
    wait_until(lambda: not stage.processes())
    assert running.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_signal_to_end_ends_everything(running: Running, stage: Stage, signum: signal.Signals) -> None:
    running.start("--worker", "session", "--worker", "child")
    os.kill(running.process.pid, signum)
    assert running.report()["event"] == "exited"
    assert running.report() == {"event": "stopped", "left": []}
    assert not stage.processes()


def test_workers_that_left_the_session_or_revive_each_other_are_ended_too(running: Running, stage: Stage) -> None:
    kinds = ["child", "session", "daemon", "stubborn", "reviver"]
    server = running.start(*(word for kind in kinds for word in ("--worker", kind)))
    wait_until(lambda: len(stage.processes()) == 1 + len(kinds) + 1)
    assert len({os.getsid(pid) for pid in stage.processes()}) == 3
    running.say("kill")
    assert running.report() == {"event": "exited", "returncode": -signal.SIGKILL}
    assert running.report() == {"event": "stopped", "left": []}
    assert server not in stage.processes()
    assert not stage.processes()


def test_when_the_server_ends_its_workers_are_ended_and_its_end_is_told_first(running: Running, stage: Stage) -> None:
    server = running.start("--worker", "daemon", "--worker", "stubborn")
    os.kill(server, signal.SIGKILL)
    assert running.report() == {"event": "exited", "returncode": -signal.SIGKILL}
    assert running.report() == {"event": "stopped", "left": []}
    assert not stage.processes()


def test_when_the_guardian_is_killed_so_is_the_server_and_its_workers_can_be_found(
    running: Running, stage: Stage
) -> None:
    server = running.start("--worker", "daemon", "--worker", "session", "--worker", "stubborn")
    workers = stage.processes() - {server}
    os.kill(running.process.pid, signal.SIGKILL)
    wait_until(lambda: server not in stage.processes())
    assert guardian.stragglers(MARK, group=server) == workers
    assert guardian.stragglers("another mark", group=None) == set()
    guardian.send(workers, signal.SIGKILL)
    wait_until(lambda: not stage.processes())


# A server that shares memory with its child, so that multiprocessing has a resource tracker; each ignores SIGTERM.
SHARING = """
import multiprocessing, multiprocessing.shared_memory, os, signal, sys, time
def work(): signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)
if __name__ == "__main__":
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    open(sys.argv[1] + ".part", "w").write(memory.name)
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    work()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory cannot be looked at elsewhere")
@pytest.mark.parametrize("how", ["kill", "the server is killed", "the guardian is killed"])
def test_shared_memory_of_killed_processes_is_removed(running: Running, stage: Stage, how: str) -> None:
    stage.write("sharing.py", SHARING)
    name = Path(stage.file("name"))
    running.say_what_to_start([sys.executable, stage.file("sharing.py"), str(name)])
    server = running.report()["pid"]
    wait_until(name.exists)
    memory = Path("/dev/shm") / name.read_text()
    assert memory.exists()
    if how == "the guardian is killed":
        os.kill(running.process.pid, signal.SIGKILL)
        wait_until(lambda: not guardian.stragglers(MARK, None) & {server})
        left = guardian.stragglers(MARK, server)
        assert guardian.resource_trackers(left)
        guardian.send(left - guardian.resource_trackers(left), signal.SIGKILL)
        wait_until(lambda: not guardian.stragglers(MARK, server))
    else:
        if how == "kill":
            running.say("kill")
        else:
            os.kill(server, signal.SIGKILL)
        assert running.report()["event"] == "exited"
        assert running.report() == {"event": "stopped", "left": []}
    wait_until(lambda: not memory.exists())


def test_the_session_is_recorded_in_the_servers_directory_which_is_removed_with_it(
    running: Running, stage: Stage
) -> None:
    directory = stage.directory / "own"
    directory.mkdir()
    spec = {"command": ["sleep", "600"], "environment": dict(os.environ), "mark": MARK, "parent": os.getpid()}
    running.say(json.dumps({**spec, "directory": str(directory)}))
    server = running.report()["pid"]
    assert (directory / guardian.SESSION).read_text() == str(server) == str(os.getsid(server))
    running.say("kill")
    assert running.report()["event"] == "exited"
    assert running.report()["event"] == "stopped"
    assert not directory.exists()


def test_nothing_is_started_for_a_parent_that_is_gone_already(running: Running, stage: Stage) -> None:
    spec = {"command": ["touch", stage.file("started")], "environment": {}, "mark": MARK, "parent": 1}
    running.say(json.dumps(spec))
    assert running.process.wait(PATIENCE_S) == 0
    assert not (stage.directory / "started").exists()


def test_a_family_is_the_descendants_and_the_group_with_theirs_but_not_the_root() -> None:
    table = {
        10: Process(1, 10, False),
        11: Process(10, 11, False),
        12: Process(11, 12, False),
        20: Process(1, 11, False),  # an orphan that stayed in the group
        21: Process(20, 21, True),
        30: Process(1, 30, False),
    }
    assert family(table, {10}, 11) == {11, 12, 20, 21}
    assert family(table, {10}, None) == {11, 12}
    assert family(table, {30}, None) == set()


def test_ps_and_proc_show_the_same_parents(running: Running, stage: Stage) -> None:
    server = running.start("--worker", "child")
    from_proc, from_ps = guardian._table_from_proc(), guardian._table_from_ps()
    for pid in {server, *stage.processes()}:
        assert from_proc[pid].parent == from_ps[pid].parent
        assert from_proc[pid].zombie == from_ps[pid].zombie is False
