"""The program itself as a process, and what it leaves behind."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from bundle.cli.main import main
from bundle.pipeline.signals import SIGNALS
from bundle.system import guarded
from tests.patience import PATIENCE_S


def run(
    *arguments: object,
    environment: Mapping[str, str],
    directory: Path | None = None,
    limit_s: float = 2 * PATIENCE_S,
) -> "subprocess.CompletedProcess[str]":
    """Run ``bundle`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bundle", *map(str, arguments)],
        env=dict(environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


def call(
    *arguments: object, environment: Mapping[str, str], directory: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """`run` without a process of its own, which costs a second or two: for tests of what it does with its arguments."""
    command = ["bundle", *map(str, arguments)]
    out, said = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", command),
        mock.patch.object(tempfile, "tempdir", None),  # that of the environment
        mock.patch.object(guarded._orphans_are_ours, "adopts", False),  # a command sets it for its whole process
        _signal_handlers_kept(),
        contextlib.chdir(directory or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    shown, told = (stream.buffer.getvalue().decode() for stream in (out, said))
    return subprocess.CompletedProcess(command, code, shown, told)


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put back those of the tests: a command sets its own for the whole process."""
    before = {number: signal.getsignal(number) for number in (signal.Signals[name] for name in SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(
    *arguments: object, environment: Mapping[str, str], log: Path, inside: Sequence[str] = ()
) -> "subprocess.Popen[bytes]":
    """Start ``bundle`` with its output going to ``log``, in a session of its own as from another terminal.

    ``inside`` is what its command begins with.
    """
    with log.open("wb") as stream:
        return subprocess.Popen(
            [*inside, sys.executable, "-m", "bundle", *map(str, arguments)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def carrying(mark: str) -> list[psutil.Process]:
    """All processes whose environment holds ``mark``, whatever became of their parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(mark in value for value in process.environ().values()):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def results_of(out: Path) -> dict[str, Any]:
    """``results.json`` of the only run under ``out``."""
    (path,) = out.glob("*/results.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def rows_of(out: Path) -> list[dict[str, Any]]:
    """``predictions.jsonl`` of the only run under ``out``."""
    (path,) = out.glob("*/predictions.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
