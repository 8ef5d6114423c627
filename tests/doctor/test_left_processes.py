"""What earlier runs have left running, told apart from runs under way, and ended with --clean."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bundle.doctor.leftovers import check_processes
from bundle.doctor.processes import session_is_alive
from bundle.system import guardian
from bundle.system.findings import Status
from tests.doctor.examined import bare_machine, examine
from tests.patience import PATIENCE_S, wait_until
from tests.program import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is left behind differs elsewhere")

# A server whose worker daemonises: it leaves the session and its parent, as engines' workers may.
SERVER = """
import os, signal, subprocess, sys, time
ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if sys.argv[1] == "stubborn" else ""
worker = f"import os, signal, sys, time; {ignoring}open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", worker, sys.argv[2], "--api-key=sk-secret"], start_new_session=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Served:
    """A server with a worker under a real guardian."""

    guardian: "subprocess.Popen[bytes]"
    server: int
    worker: psutil.Process

    def lose_its_run(self) -> None:
        """Kill the guardian as a run is killed together with it: the kernel ends the server, the worker stays."""
        self.guardian.send_signal(signal.SIGKILL)
        self.guardian.wait()
        wait_until(lambda: not psutil.pid_exists(self.server) or _is_zombie(self.server))
        wait_until(lambda: self.worker.ppid() != self.server)


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@contextlib.contextmanager
def served(scratch: Path, kind: str = "", *, program: str = SERVER, directory: Path | None = None) -> Iterator[Served]:
    """Start one, and whatever the test does, leave nothing of it."""
    pid_file = scratch / f"worker-{secrets.token_hex(4)}"
    spec = {
        "command": [sys.executable, "-c", program, kind, str(pid_file)],
        "directory": None if directory is None else str(directory),
        "environment": dict(os.environ),
        "mark": secrets.token_hex(8),
        "parent": os.getpid(),
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(spec).encode() + b"\n")
    process.stdin.flush()
    started = json.loads(process.stdout.readline())
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    worker = psutil.Process(int(pid_file.read_text()))
    try:
        yield Served(process, started["pid"], worker)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
        process.stdin.close()
        process.wait(timeout=PATIENCE_S)
        process.stdout.close()


# A server whose engine overwrites its environment, as setproctitle does, and so shows no mark.
RETITLED = """
import subprocess, sys, time
engine = (
    "import ctypes, sys, time; fields = open('/proc/self/stat').read().rpartition(')')[2].split();"
    "begin, end = int(fields[47]), int(fields[48]); ctypes.memset(begin, 0, end - begin);"
    "open(sys.argv[1], 'w').write(str(__import__('os').getpid())); time.sleep(600)"
)
subprocess.Popen([sys.executable, "-c", engine, sys.argv[2]])
time.sleep(600)
"""


def test_a_process_that_overwrote_its_environment_is_found_by_its_session_and_ended(tmp_path: Path) -> None:
    environment = bare_machine(tmp_path)
    directory = tmp_path / "tmp" / "bundle-server-of-a-dead-run"
    directory.mkdir()
    with served(tmp_path, program=RETITLED, directory=directory) as lost, served(tmp_path, program=RETITLED) as alive:
        assert "BUNDLE_GUARDIAN" not in lost.worker.environ()
        lost.lose_its_run()
        os.utime(directory, (0, 0))
        found = examine(environment=environment)
        assert shown(found.of("leftovers"), lost.worker.pid)
        assert not shown(found.of("leftovers"), alive.worker.pid)

        result = run("doctor", "--clean", "--data", "sample", environment=environment)

        assert f"process {lost.worker.pid}," in result.stdout
        assert _is_zombie(lost.worker.pid)
        assert alive.worker.is_running()


def test_the_directory_of_a_server_stays_while_one_of_its_processes_lives(tmp_path: Path) -> None:
    directory = tmp_path / "bundle-server-of-a-dead-run"
    directory.mkdir()
    with served(tmp_path, program=RETITLED, directory=directory) as lost:
        lost.lose_its_run()
        assert session_is_alive(directory)
    wait_until(lambda: not session_is_alive(directory))


def shown(findings: list[dict[str, object]], pid: int) -> list[str]:
    """The lines that name a process."""
    lines = [str(detail) for finding in findings for detail in finding["details"]]  # type: ignore[attr-defined]
    return [line for line in lines if line.startswith(f"process {pid},")]


def test_a_worker_whose_run_was_killed_is_named_and_left_alone_until_it_is_asked_for(tmp_path: Path) -> None:
    with served(tmp_path) as lost:
        lost.lose_its_run()
        found = examine(environment=bare_machine(tmp_path))

        (line,) = shown(found.of("leftovers"), lost.worker.pid)
        assert "python" in line
        assert "user " in line
        assert "sk-secret" not in line
        (finding,) = [one for one in found.of("leftovers") if line in one["details"]]
        assert (finding["status"], finding["remedy"]) == ("warning", "`bundle doctor --clean` ends them.")
        assert found.code in (1, 2)
        assert lost.worker.is_running()


def test_clean_ends_what_is_left_behind_and_touches_no_run_under_way(tmp_path: Path) -> None:
    with served(tmp_path) as lost, served(tmp_path, "stubborn") as stubborn, served(tmp_path) as alive:
        lost.lose_its_run()
        stubborn.lose_its_run()
        bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

        result = run("doctor", "--clean", "--data", "sample", environment=bare_machine(tmp_path))

        lines = result.stdout.splitlines()
        (gentle,) = [line for line in lines if f"process {lost.worker.pid}," in line]
        (forced,) = [line for line in lines if f"process {stubborn.worker.pid}," in line]
        assert "ignored SIGTERM" not in gentle
        assert "ignored SIGTERM" in forced
        assert any(line.startswith("ok        leftovers  ended ") for line in lines)
        for one in (lost, stubborn):
            assert _is_zombie(one.worker.pid)
        assert alive.worker.is_running()
        assert psutil.pid_exists(alive.server)
        assert alive.guardian.poll() is None
        assert f"process {alive.worker.pid}," not in result.stdout
        assert "of runs in progress" in result.stdout
        assert bystander.poll() is None
        bystander.communicate()


def test_a_run_whose_guardian_is_stopped_is_told_and_left_alone(tmp_path: Path) -> None:
    with served(tmp_path) as stopped:
        stopped.guardian.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: psutil.Process(stopped.guardian.pid).status() == psutil.STATUS_STOPPED)
            found = list(check_processes(clean=False))
            (told,) = [one for one in found if any(f"process {stopped.worker.pid}," in line for line in one.details)]
            assert told.status is Status.WARNING
            assert "kill -CONT" in str(told.remedy)
            assert stopped.worker.is_running()
        finally:
            stopped.guardian.send_signal(signal.SIGCONT)


def test_without_proc_it_is_said_what_cannot_be_looked_for_and_the_rest_is(tmp_path: Path) -> None:
    script = 'mount -t tmpfs none /proc && exec "$@"'
    hidden = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "bundle", "doctor", "--json"]
    trial = subprocess.run([*hidden[:5], "true"], capture_output=True, check=False)
    if trial.returncode != 0:
        pytest.skip("this user may not hide /proc from a program")
    environment = bare_machine(tmp_path) | {"PATH": os.environ["PATH"]}
    result = subprocess.run(
        [*hidden, "--data", "sample", "--out", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    found = json.loads(result.stdout)["findings"]
    assert "Traceback" not in result.stderr
    (finding,) = [one for one in found if "cannot look for processes" in one["text"]]
    assert finding["status"] == "warning"
    assert "there is no /proc" in finding["text"]
    assert any(one["topic"] == "data" and one["status"] == "ok" for one in found)
