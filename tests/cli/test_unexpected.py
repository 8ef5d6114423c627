"""Nothing ends in a traceback, with exit code 1 or in an abort."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from bundle.cli import main as command_line
from bundle.cli._unexpected import hide_secrets, write_details
from tests.openai_api import Call, letter, remote_api
from tests.patience import PATIENCE_S
from tests.program import run
from tests.reports.run_directories import write_run
from tests.stand_ins.box import gpu_box


def test_an_unexpected_exception_is_one_line_a_file_and_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(**_: object) -> None:
        raise KeyError("sk-0123456789abcdef\nmore")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(command_line, "app", fails)
    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert ended.value.code == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: unexpected error in bundle ")
    (file,) = tmp_path.iterdir()
    assert said.rstrip().endswith(str(file))
    details = file.read_text(encoding="utf-8")
    assert "Traceback" in details
    assert "KeyError" in details
    assert "0123456789" not in said + details


def test_details_go_into_the_run_directory_and_else_to_a_temporary_file(tmp_path: Path) -> None:
    assert write_details(ValueError("x"), tmp_path) == tmp_path / "error.txt"
    elsewhere = write_details(ValueError("x"), tmp_path / "gone")
    assert elsewhere is not None
    assert elsewhere.is_file()
    elsewhere.unlink()


def test_keys_of_the_environment_and_passwords_in_urls_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "first-secret,second-secret")
    shown = hide_secrets("first-secret second-secret http://user:pass@host Bearer abc sk-abc")
    assert shown == "*** *** http://***@host Bearer *** ***"


_COMMANDS = {
    "--version": 0,
    "tasks ceval_gen": 0,
    "models": 0,
    "runs": 0,
    "report one": 0,
    "compare one two": 0,
    "rescore one": 0,
    "doctor": None,  # depends on the machine
    "make-checkpoint made --like tiny": 0,
    "eval-remote m --base-url http://127.0.0.1:9/v1 --data sample --retries 0 --patience 1s": 3,
    "eval-local tiny --data sample --limit 1": 0,
    "report nothing": 2,
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    directory = tmp_path_factory.mktemp("workplace")
    shutil.copytree(tiny, directory / "tiny")
    for name, marks in (("one", "1100"), ("two", "1110")):
        write_run(directory / "outputs" / name, {"law": marks}, replies={("law", 0): "A"})
    return directory


# One of them a command, in turn; the others are slow, and all are opened in the same place.
_CLOSED = ("<&-", ">&-", "2>&-")


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        pytest.param(arguments, closed, marks=[] if (number + place) % 3 == 0 else pytest.mark.slow)
        for number, arguments in enumerate(_COMMANDS)
        for place, closed in enumerate(_CLOSED)
    ],
)
@pytest.mark.slow
def test_closed_streams_change_nothing(arguments: str, closed: str, workplace: Path) -> None:
    shutil.rmtree(workplace / "made", ignore_errors=True)
    ended = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m bundle {arguments} {closed}"],
        cwd=workplace,
        env=gpu_box(workplace) | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == _COMMANDS[arguments] or (_COMMANDS[arguments] is None and ended.returncode in (0, 2))
    assert b"Traceback" not in ended.stdout + ended.stderr
    assert not (ended.stdout if closed == ">&-" else ended.stderr if closed == "2>&-" else b"")


def test_too_little_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(command_line, "app", fails)
    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert (ended.value.code, capsys.readouterr().err) == (
        2,
        "error: not enough memory\nhint: See `free -g` and `ulimit -v`.\n",
    )


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (
            "v 100000",
            "The memory limit is 97 MB; at least 512 MB are needed.\nhint: Raise it, for example with `ulimit -v",
        ),
        ("f 4", "cannot be written: File too large.\nhint: Raise the limit on the size of a file (`ulimit -f`)"),
    ],
)
def test_limits_of_the_shell_are_named(limit: str, said: str, tmp_path: Path) -> None:
    with remote_api() as api:
        command = f"eval-remote m --base-url {api.url} --data sample --out {tmp_path}"
        ended = subprocess.run(
            ["bash", "-c", f"ulimit -{limit}; exec {sys.executable} -m bundle {command}"],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    assert ended.returncode == 2
    assert said in ended.stderr


def test_the_end_of_its_cpu_time_is_named_and_leaves_time_to_end_in_order(tmp_path: Path) -> None:
    """The kernel sends the signal once a second, and kills some seconds later."""
    arrived, over = threading.Event(), threading.Event()

    async def silent(call: Call) -> web.StreamResponse:
        arrived.set()
        await asyncio.to_thread(over.wait, PATIENCE_S)
        return await letter(call)

    with remote_api(silent) as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "-m", "bundle", "eval-remote", "m", *options], stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10_000, 10_000)),
        )  # fmt: skip
        assert arrived.wait(PATIENCE_S)
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_CPU) == (9_995, 10_000)
        for _ in range(2):
            process.send_signal(signal.SIGXCPU)
        _, said = process.communicate(timeout=PATIENCE_S)
        over.set()
    assert process.returncode == 130
    assert "stopping: the CPU time limit is used up (`ulimit -t`)" in said
    assert "interrupted; the answers so far are saved" in said


def test_a_limit_on_threads_is_named_and_the_user_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(command_line, "app", fails)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "ulimit -u" in capsys.readouterr().err


def test_a_current_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f'cd "{tmp_path}/gone" && rmdir ../gone && exec "$0" -m bundle eval-local /model'
    ended = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "The current directory was removed" in ended.stderr


def test_an_output_on_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "bundle", "models"], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert ran.returncode == 2
    assert ran.stderr == b"error: the output cannot be written: No space left on device\nhint: See `df -h`.\n"


@pytest.mark.parametrize("arguments", [("tasks", "ceval_gen"), ("models",), ("--help",), ("tasks", "--help")])
def test_a_reader_that_has_gone_is_no_gate_that_was_not_met(arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "bundle", *arguments], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)

    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, b"")


def test_ctrl_c_while_the_program_is_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")

    ran = run("runs", environment={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert (ran.returncode, ran.stderr) == (-signal.SIGINT, "")
