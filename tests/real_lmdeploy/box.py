"""A machine with real lmdeploy whose GPU is its CPU, and what can be seen of a run on it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.patience import wait_until
from tests.program import carrying, results_of, rows_of
from tests.stand_ins.box import GPU, ROOT, install

VERSIONS = ("0.12.3", "0.14.0", "0.16.0", "0.18.0")
NEWEST = VERSIONS[-1]
_LONGEST_RUN_S = 3000.0
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

    def run(self, model_dir: Path, *options: object, data: object = "sample") -> "subprocess.CompletedProcess[str]":
        """Evaluate a checkpoint to the end."""
        command = ["eval-local", model_dir, "--data", data, "--out", self.out, "--engine", "lmdeploy", *options]
        return subprocess.run(
            [sys.executable, "-m", "bundle", *map(str, command)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_RUN_S,
            check=False,
        )

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

    def lose_the_race(self) -> None:
        """Let the next start lose the race of ``layer/import_hooks.py``."""
        self._race.touch()

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

    def check_nothing_is_left(self) -> None:
        """No process of this machine, wherever it went."""
        wait_until(lambda: not carrying(str(self.directory)))
