"""A Ray cluster on one machine, and evaluations on it."""

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from tests.faults.box import Box
from tests.patience import PATIENCE_S, wait_until
from tests.program import carrying
from tests.stand_ins.box import STAND_INS, gpu_box

_OURS = ("bundle.worker", "bundle.fleet", "guardian.py", "lmdeploy", "ray::Carrier")
"""What of a cluster's processes there is only while something is evaluated on it."""


class Nodes:
    """The cluster. Everything that its machines start is told its environment by a file, which tests may write.

    Attributes:
        address: What follows ``--cluster``.
        variables: The file.
        journal: Where the servers tell what happens to them.
        word: A file for which some wait.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.word = directory / "journal-go-on"
        self.variables = directory / "variables"
        self.set("good")
        self._environment = gpu_box(directory) | {
            "LMDEPLOY_STAND_IN_JOURNAL": str(self.journal),
            "RAY_TMPDIR": str(directory),
        }
        script = directory / "bin" / "lmdeploy"
        shebang = script.read_text().partition("\n")[0]
        set_variables = f"import json, os\nos.environ.update(json.load(open({str(self.variables)!r})))\n"
        script.write_text(f"{shebang}\n{set_variables}{(STAND_INS / 'lmdeploy.py').read_text()}")
        self._begin()

    def _begin(self) -> None:
        from ray.cluster_utils import Cluster  # missing where these tests are skipped

        with mock.patch.dict(os.environ, self._environment, clear=True):
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={"num_gpus": 0, "include_dashboard": False},
            )
        for _ in range(2):
            self.add()
        self.address = str(self._cluster.address)

    def add(self, **environment: str) -> Any:
        """Add a machine. Each locks a GPU of its own, although all are one machine's."""
        locks = self.directory / f"locks-{len(list(self.directory.glob('locks-*')))}"
        locks.mkdir()
        variables = {**environment, "BUNDLE_GPU_LOCKS": str(locks)}
        with mock.patch.dict(os.environ, self._environment, clear=True):
            return self._cluster.add_node(num_cpus=1, num_gpus=1, env_vars=variables)

    def remove(self, node: Any) -> None:
        """Kill a machine's raylet. Ray lists it for a while."""
        self._cluster.remove_node(node, allow_graceful=False)

    def make_zombie(self, node: Any) -> None:
        """Kill a machine's raylet, a child of these tests, and do not take note of its end."""
        (raylet,) = node.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    def settle(self) -> None:
        """Wait until Ray lists the machines that there are, and no others."""
        self._cluster.wait_for_nodes(timeout=PATIENCE_S)

    def set(self, behaviour: str, **more: str) -> None:
        """How servers behave that start after this."""
        self.word.unlink(missing_ok=True)
        self.variables.write_text(json.dumps({"LMDEPLOY_STAND_IN": behaviour, **more}))

    def go_on(self) -> None:
        """Let servers that wait for a word go on, until they are set otherwise."""
        self.word.touch()

    def processes(self, name: str = "") -> list[psutil.Process]:
        """What runs on the machines for an evaluation and has ``name`` in its command line."""
        found = []
        for process in carrying(str(self.directory)):
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                command = " ".join(process.cmdline())
                if name in command and any(one in command for one in _OURS):
                    found.append(process)
        return found

    def pids(self, name: str) -> list[int]:
        return [one.pid for one in self.processes(name)]

    def shut_down(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()


class ClusterBox(Box):
    """A machine of the cluster; see `Box`."""

    def __init__(self, directory: Path, model_dir: Path, nodes: Nodes) -> None:
        super().__init__(directory, model_dir)
        self.nodes = nodes
        self._journal = nodes.journal
        self._journal.unlink(missing_ok=True)
        self.on_one_machine: Sequence[object] = self._command
        self._command = [*self._command, "--cluster", nodes.address]
        nodes.set("good")

    def check_nothing_is_left(self) -> None:
        super().check_nothing_is_left()
        wait_until(lambda: not self.nodes.processes())
