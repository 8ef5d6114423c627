"""A machine with real lmdeploy whose GPU is its CPU, and what can be seen of a run on it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.patience import PATIENCE_S, wait_until
from tests.program import carrying, results_of, rows_of, start
from tests.stand_ins.box import GPU, ROOT, install

VERSIONS = ("0.12.3", "0.14.0", "0.16.0", "0.18.0")
NEWEST = VERSIONS[-1]
_LONGEST_RUN_S = 900.0
SAMPLE = 104
"""Questions in the sample, two a subject."""


class LmdeployBox:
    """The machine; everything is below ``directory``.

    Args:
        directory: An empty directory.
        installation: A folder of ``install.sh``'s, for one version.
        variables: More of the environment.
    """

    def __init__(self, directory: Path, installation: Path, variables: Mapping[str, str]) -> None:
        self.directory, self.out, self.log = directory, directory / "out", directory / "log"
        self._fault, self._race = directory / "fault", directory / "race"
        executables = install(directory / "bin", "nvidia-smi")
        dropped = ("CUDA_VISIBLE_DEVICES", "BUNDLE_TEST_LMDEPLOY")
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "PATH": os.pathsep.join([str(executables), os.environ["PATH"]]),
            "BUNDLE_LMDEPLOY": str(installation / "bin" / "lmdeploy"),
            "PYTHONPATH": str(ROOT),
            "NVIDIA_SMI_STAND_IN": json.dumps({"gpus": [GPU], "processes": []}),
            "BUNDLE_CACHE": str(directory / "cache"),
            "LMDEPLOY_ENABLE_CHECK_ENV": "0",
            "TORCHDYNAMO_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            "LMDEPLOY_ON_CPU_MIB": "256",
            "LMDEPLOY_ON_CPU_FAULT": str(self._fault),
            "LMDEPLOY_ON_CPU_RACE": str(self._race),
            **variables,
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, model_dir: Path, *options: object) -> "subprocess.CompletedProcess[str]":
        """Evaluate a checkpoint to the end."""
        return subprocess.run(
            [sys.executable, "-m", "bundle", *map(str, self._command(model_dir, *options))],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_RUN_S,
            check=False,
        )

    def start(self, model_dir: Path, *options: object) -> "subprocess.Popen[bytes]":
        """Begin to; its output goes to ``log``."""
        process = start(*self._command(model_dir, *options), environment=self.environment, log=self.log)
        self._started.append(process)
        return process

    def finish(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for what was started; its exit code."""
        return process.wait(_LONGEST_RUN_S)

    def inject(self, fault: str) -> None:
        """Let a fault happen at the engine's next step; see ``layer/faults.py``."""
        part = self._fault.with_suffix(".part")
        part.write_text(fault, encoding="utf-8")
        part.rename(self._fault)

    def lose_the_race(self) -> None:
        """Let the next start lose the race of ``layer/import_hooks.py``."""
        self._race.touch()

    def said(self) -> str:
        """What the program that was started has printed."""
        return self.log.read_text(encoding="utf-8")

    def until_restarted(self, times: int) -> None:
        """Wait until the server is being started again for this time."""
        wait_until(lambda: self.said().count("restarting the server") >= times, 2 * PATIENCE_S)

    def until_answered(self, number: int) -> None:
        """Wait until so many questions have been answered."""
        wait_until(lambda: self.answered() >= number, 2 * PATIENCE_S)

    def answered(self) -> int:
        """Rows that are on disk."""
        return sum(path.read_bytes().count(b"\n") for path in self.out.glob("*/predictions.jsonl"))

    def rows(self) -> list[dict[str, Any]]:
        """``predictions.jsonl``."""
        return rows_of(self.out)

    def results(self) -> dict[str, Any]:
        """``results.json``."""
        return results_of(self.out)

    def server_log(self) -> str:
        """Everything the servers printed."""
        (path,) = self.out.glob("*/server.log")
        return path.read_text(encoding="utf-8", errors="replace")

    def api_server(self) -> psutil.Process:
        """lmdeploy's API server of the run that goes on."""
        return next(
            process
            for process in carrying(str(self.directory))
            if "api_server" in process.cmdline() and "multiprocessing" not in " ".join(process.cmdline())
        )

    def engine(self) -> psutil.Process:
        """The process below it that computes: of its children by multiprocessing, the one with most memory."""
        children = [child for child in self.api_server().children() if "spawn_main" in " ".join(child.cmdline())]
        return max(children, key=lambda child: child.memory_info().rss)

    def end(self) -> None:
        """End what a test has left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def check_nothing_is_left(self) -> None:
        """No process of this machine, wherever it went."""
        deadline = time.monotonic() + 30
        while left := carrying(str(self.directory)):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def _command(self, model_dir: Path, *options: object) -> list[object]:
        return ["eval-local", model_dir, "--data", "sample", "--out", self.out, "--engine", "lmdeploy", *options]
