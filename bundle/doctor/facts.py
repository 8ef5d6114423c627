"""What several checks have to know of this machine, found out once and when it is first wanted.

Packages are imported where they are used: one that is missing is a finding of the checks that need it, and the slow
ones are imported while other checks wait for programs and servers.
"""

import sys
from typing import TYPE_CHECKING, Any, Final

from bundle.doctor.checks import Fact
from bundle.doctor.probes import run_probe
from bundle.errors import ServerError

if TYPE_CHECKING:
    from bundle.doctor.processes import MarkedProcess
    from bundle.doctor.requirements import Environment
    from bundle.serving.gpus import Gpu, Nvidia
    from bundle.serving.installation import Installation

SLOW: Final = 3.0
"""How many times the usual limit something may take that reads gigabytes from a disk that may be cold."""

# What waits for a program gives up a little before its check does, for it can say what it waited for.
_PROGRAM: Final = 0.9


class Facts:
    """The facts. Each is a call that returns it, or raises what finding it out raised.

    Args:
        limit_s: Most seconds that a program may take to answer.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = _PROGRAM * limit_s
        self.nvidia = Fact(self._ask_nvidia)
        self.lmdeploy = Fact(_find_lmdeploy)
        self.ours = Fact(_describe_ours)
        self.lmdeploys = Fact(self._describe_lmdeploys)
        self.torch = Fact(self._probe_torch)
        self.marked = Fact(_find_marked)

    def usable_gpus(self) -> "list[Gpu]":
        """The GPUs that CUDA_VISIBLE_DEVICES leaves."""
        from bundle.serving.gpus import visible_gpus

        return visible_gpus(self.nvidia().gpus)

    def _ask_nvidia(self) -> "Nvidia":
        from bundle.serving.gpus import ask_for_gpus

        return ask_for_gpus(self._limit_s)

    def _describe_lmdeploys(self) -> "Environment | None":
        """What is installed beside lmdeploy; None where there is none."""
        from bundle.doctor.requirements import ASKED_OF_PROBE, Environment

        installed = self.lmdeploy()
        if isinstance(installed, str):
            return None
        if installed.interpreter == sys.executable:
            found = self.ours()
        else:
            answer = run_probe(installed.interpreter, "environment_probe.py", ASKED_OF_PROBE, limit_s=self._limit_s)
            found = Environment.from_probe(answer)
        # One that pip knows nothing of is there all the same.
        versions = {"lmdeploy": installed.version, **found.versions}
        return Environment(found.python, versions, found.requires, found.cuda)

    def _probe_torch(self) -> dict[str, Any] | None:
        """What the torch beside lmdeploy says of the GPUs; None where there is no lmdeploy."""
        installed = self.lmdeploy()
        if isinstance(installed, str):
            return None
        return run_probe(installed.interpreter, "torch_probe.py", (), limit_s=SLOW * self._limit_s)


def _find_lmdeploy() -> "Installation | str":
    """The lmdeploy there is, or why there is none that can be used."""
    from bundle.serving.machine import Machine

    try:
        return Machine().installation("lmdeploy")
    except ServerError as error:
        return error.message


def _describe_ours() -> "Environment":
    from bundle.doctor.environment_probe import describe
    from bundle.doctor.requirements import ASKED_OF_PROBE, Environment

    return Environment.from_probe(describe(list(ASKED_OF_PROBE)))


def _find_marked() -> "list[MarkedProcess]":
    from bundle.doctor.processes import marked_processes

    return marked_processes()
