"""Where lmdeploy is installed, and which one it is."""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ServerError
from bundle.serving.python_scripts import find_script, interpreter_of
from bundle.system.child_environment import without_keys

_INSTALL = "Install it with `pip install '.[gpu]'` in a checkout of this project."
_TIMEOUT_S = 60.0

_DESCRIBE = (
    "import importlib.metadata as m; d = m.distribution('lmdeploy'); print(d.version, 'in', d.locate_file('lmdeploy'))"
)


@dataclass(frozen=True, slots=True)
class LmdeployInstallation:
    """An lmdeploy that can be run.

    Attributes:
        interpreter: The Python that runs it.
        script: Its script, or "-m" where it is run as a module.
        version: As in ``0.18.0``.
        package: The folder of its package; None where that cannot be told.
    """

    interpreter: str
    script: str
    version: str
    package: Path | None


def find_lmdeploy() -> LmdeployInstallation:
    """The lmdeploy of our own environment, or else the one on PATH.

    Raises:
        ServerError: There is none, or it cannot be used.
    """
    script = find_script("lmdeploy")
    if script is None:
        if importlib.util.find_spec("lmdeploy") is None:
            raise ServerError("lmdeploy is not installed.", remedy=_INSTALL)
        return LmdeployInstallation(sys.executable, "-m", *_asked(sys.executable, "-m"))
    interpreter = interpreter_of(script)
    if interpreter is None:
        raise ServerError(
            f"{script} is not a Python script, so its API key could not be kept off its argument list.",
            remedy="Put the lmdeploy that pip installed on PATH.",
        )
    found = _read_beside(script) or _asked(interpreter, str(script))
    return LmdeployInstallation(interpreter, str(script), *found)


def _read_beside(script: Path) -> tuple[str, Path] | None:
    """Version and package of the environment the script belongs to, from its folders; None where they do not tell.

    Asking the interpreter would take a tenth of a second or more.
    """
    environment = script.resolve().parent.parent
    found = [
        (directory.name.removeprefix("lmdeploy-").removesuffix(".dist-info"), directory.with_name("lmdeploy"))
        for directory in environment.glob("lib/python3*/site-packages/lmdeploy-*.dist-info")
    ]
    if len(found) != 1 or not (found[0][1] / "__init__.py").is_file():
        return None  # none, several Pythons, or one that is installed from elsewhere
    return found[0]


def _asked(interpreter: str, script: str) -> tuple[str, Path | None]:
    """Version and package as the interpreter, or else the script itself, tells them."""
    commands = []
    if interpreter == sys.executable:
        if (ours := _in_our_environment()) is not None:
            return ours
    else:
        commands.append([interpreter, "-c", _DESCRIBE])
    if script != "-m":
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
        told = re.search(r"(\d+\.\d+\S*)(?: in (.*))?", result.stdout)
        if result.returncode == 0 and told:
            return told.group(1), Path(told.group(2)) if told.group(2) else None
    raise ServerError(f"{script} does not tell its version.", remedy=_INSTALL)


def _in_our_environment() -> tuple[str, Path] | None:
    import importlib.metadata

    try:
        found = importlib.metadata.distribution("lmdeploy")
    except importlib.metadata.PackageNotFoundError:
        return None
    return found.version, Path(str(found.locate_file("lmdeploy")))
