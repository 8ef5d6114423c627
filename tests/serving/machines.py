"""Machines that are made up."""

from pathlib import Path

from bundle.errors import ServerError
from bundle.serving.gpus import Nvidia
from bundle.serving.machine import Installation, Machine


class MadeMachine(Machine):
    """A machine whose nvidia-smi says this, with these servers and no others."""

    def __init__(self, nvidia: Nvidia | None = None, *installed: Installation) -> None:
        super().__init__()
        self._said = nvidia or Nvidia(installed=False)
        self._installed = {Path(one.script).name: one for one in installed}

    @property
    def nvidia(self) -> Nvidia:
        return self._said

    def installation(self, name: str) -> Installation:
        if name not in self._installed:
            raise ServerError(f"{name} is not installed.", remedy="Install it.")
        return self._installed[name]


def installed(name: str, version: str, package: Path | None = None) -> Installation:
    """A server in an environment of its own."""
    return Installation(f"/opt/{name}/bin/python", f"/opt/{name}/bin/{name}", version, package)
