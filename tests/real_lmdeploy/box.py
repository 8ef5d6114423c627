"""A machine with real lmdeploy whose GPU is its CPU, and what can be seen of a run on it."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.patience import wait_until
from tests.program import carrying, results_of, rows_of
from tests.stand_ins.box import GPU, ROOT, install

VERSIONS = ("0.12.3", "0.14.0", "0.16.0", "0.18.0")
OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]
SAMPLE = 104
"""Questions in the sample, two a subject."""
FEW = ("--subjects", "law,logic,accountant", "--full-replies")
"""Six of them. Replies are requested whole: a streamed one can end without its number of tokens on a busy machine."""


@dataclass(frozen=True)
class Ran:
    """A run that has ended.

    Attributes:
        returncode: Its exit code.
        stdout: What it printed.
        said: The lines of its standard error, each with the time at which it was said (seconds since the epoch).
    """

    returncode: int
    stdout: str
    said: list[tuple[float, str]]

    @property
    def stderr(self) -> str:
        """All of them."""
        return "".join(line for _, line in self.said)


class LmdeployBox:
    """The machine; everything is below ``directory``.

    Args:
        directory: An empty directory.
        installation: A folder of ``install.sh``'s, for one version.
        variables: More of the environment.
    """

    def __init__(self, directory: Path, installation: Path, variables: Mapping[str, str]) -> None:
        self.directory, self.out = directory, directory / "out"
        self._faults, self._race = directory / "faults", directory / "race"
        executables = install(directory / "bin", "nvidia-smi")
        dropped = ("CUDA_VISIBLE_DEVICES", "BUNDLE_TEST_LMDEPLOY")
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "PATH": os.pathsep.join([str(executables), os.environ["PATH"]]),
            "BUNDLE_LMDEPLOY": str(installation / "bin" / "lmdeploy"),
            "PYTHONPATH": str(ROOT),
            "NVIDIA_SMI_STAND_IN": json.dumps({"gpus": [GPU], "processes": []}),
            "BUNDLE_CACHE": str(directory / "cache"),
            "BUNDLE_GPU_LOCKS": str(directory / "locks"),
            "LMDEPLOY_ENABLE_CHECK_ENV": "0",
            "TORCHDYNAMO_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            "LMDEPLOY_ON_CPU_MIB": "256",
            "LMDEPLOY_ON_CPU_FAULTS": str(self._faults),
            "LMDEPLOY_ON_CPU_RACE": str(self._race),
            **variables,
        }

    def run(self, model_dir: Path, *options: object, data: object = "sample") -> Ran:
        """Evaluate a checkpoint to the end."""
        return self._bundle(
            "eval-local", model_dir, "--engine", "lmdeploy", "--data", data, "--out", self.out, *options
        )

    def run_remote(self, base_url: str, *options: object) -> Ran:
        """Evaluate what a server has, to the end."""
        return self._bundle("eval-remote", "--base-url", base_url, "--data", "sample", "--out", self.out, *options)

    def _bundle(self, *arguments: object) -> Ran:
        with (
            tempfile.TemporaryFile("w+") as stdout,
            subprocess.Popen(
                [sys.executable, "-m", "bundle", *map(str, arguments)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            assert process.stderr is not None
            try:
                said = [(time.time(), line) for line in process.stderr]
            except BaseException:  # Ctrl-C and time limits, too, end the run with its server
                process.terminate()
                raise
            process.wait()
            stdout.seek(0)
            return Ran(process.returncode, stdout.read(), said)

    @contextlib.contextmanager
    def server(self, model_dir: Path, *options: object) -> Iterator[str]:
        """lmdeploy as somebody else starts it, without ``bundle``; its base URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        template = self.directory / "template.json"
        template.write_text(json.dumps({"model_name": "hf", "model_path": str(model_dir)}), encoding="utf-8")
        command = [
            self.environment["BUNDLE_LMDEPLOY"],
            "serve",
            "api_server",
            model_dir,
            "--server-port",
            port,
            *options,
        ]
        command += ["--server-name", "127.0.0.1", "--backend", "pytorch", "--chat-template", template]
        with (self.directory / "log").open("wb") as log:
            process = subprocess.Popen(list(map(str, command)), env=self.environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or _is_healthy(port), seconds=_LONGEST_START_S)
            assert process.poll() is None, (self.directory / "log").read_text(encoding="utf-8")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            for one in carrying(str(self.directory)):
                one.kill()
            process.wait()

    def inject(self, *faults: str, after: int) -> None:
        """Let each life of the engine but the last end in one of these; see ``layer/faults.py``.

        Args:
            faults: In their order.
            after: At which prompt of its life.
        """
        self._faults.write_text("".join(f"{after} {fault}\n" for fault in faults), encoding="utf-8")

    def still_to_happen(self) -> str:
        """Faults that have not happened."""
        return self._faults.read_text(encoding="utf-8")

    def last_fault_at(self) -> float:
        """When the last fault happened (seconds since the epoch)."""
        return self._faults.stat().st_mtime

    def lose_the_race(self) -> None:
        """Let the next start lose the race of ``layer/import_hooks.py``."""
        self._race.touch()

    def rows(self) -> list[dict[str, Any]]:
        """``predictions.jsonl``."""
        return rows_of(self.out)

    def by_question(self, *fields: str) -> dict[tuple[str, int], tuple[Any, ...]]:
        """These fields of each row, None where one is not there, by subject and number."""
        return {(row["subject"], row["id"]): tuple(map(row.get, fields)) for row in self.rows()}

    def results(self) -> dict[str, Any]:
        """``results.json``."""
        return results_of(self.out)

    def server_log(self) -> str:
        """Everything the servers printed."""
        (path,) = self.out.glob("*/server.log")
        return path.read_text(encoding="utf-8", errors="replace")

    def check_nothing_is_left(self) -> None:
        """No process of this machine, wherever it went."""
        wait_until(lambda: not carrying(str(self.directory)))


_LONGEST_START_S = 3000.0


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
