"""``bundle doctor`` as a user runs it, on machines made up for it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S
from tests.program import call, run

ROOT = Path(__file__).parents[2]
_OF_OTHERS = ("CUDA_VISIBLE_DEVICES", "BUNDLE_GUARDIAN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT")


@dataclass(frozen=True)
class Examined:
    """What ``bundle doctor --json`` said."""

    code: int
    status: str
    findings: list[dict[str, Any]]

    def of(self, topic: str) -> list[dict[str, Any]]:
        """The findings on a topic."""
        return [finding for finding in self.findings if finding["topic"] == topic]

    def one(self, topic: str, words: str) -> dict[str, Any]:
        """The only finding on a topic whose text holds these words."""
        found = [finding for finding in self.of(topic) if words in finding["text"]]
        assert len(found) == 1, f"{words!r} is not in one of {self.of(topic)}"
        return found[0]


def bare_machine(directory: Path, **more: str) -> dict[str, str]:
    """The environment of a machine with nothing on PATH, an empty home and no network."""
    for name in ("home", "tmp", "bin"):
        (directory / name).mkdir(exist_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_OTHERS and not name.lower().endswith("_proxy") and not name.startswith("XDG_")
    }
    return environment | {
        "PATH": str(directory / "bin"),
        "HOME": str(directory / "home"),
        "HF_HOME": str(directory / "home" / "hub"),
        "BUNDLE_CACHE": str(directory / "cache"),
        "MODELSCOPE_CACHE": str(directory / "modelscope"),
        "TMPDIR": str(directory / "tmp"),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def examine(*arguments: object, environment: Mapping[str, str], data: str = "sample", alone: bool = False) -> Examined:
    """Run ``bundle doctor --json``; the questions are those of the package where nothing else is said.

    With ``alone`` in a process of its own, for variables that a library reads but once.
    """
    out = Path(environment["TMPDIR"]).parent / "outputs"
    options = [] if data == "default" else ["--data", data]
    given: list[object] = [] if "--out" in arguments else ["--out", out]
    if "--time-limit" not in arguments:
        given += ["--time-limit", PATIENCE_S / 2]  # a busy machine may take longer than a user would wait
    result = (run if alone else call)("doctor", "--json", *options, *given, *arguments, environment=environment)
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    return Examined(result.returncode, answer["status"], answer["findings"])


def stand_in_packages(site: Path, versions: Mapping[str, str], requires: Mapping[str, list[str]] | None = None) -> Path:
    """Metadata of packages, as pip leaves it beside them."""
    for name, version in versions.items():
        metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        lines = [f"Requires-Dist: {line}" for line in (requires or {}).get(name, [])]
        text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
        (metadata / "METADATA").write_text(text + "\n")
    return site


def stand_in_torch(site: Path, *, cuda: str, devices: int, architectures: list[str], said: str = "") -> Path:
    """A torch that finds as many GPUs as it is told to."""
    package = site / "torch"
    package.mkdir(parents=True)
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = '2.12.1'\ncuda: Optional[str] = {cuda!r}\n"
    )
    (package / "__init__.py").write_text(
        "from torch import cuda, version\n__version__ = version.__version__\nprint('torch says hello')\n"
    )
    (package / "cuda.py").write_text(
        "import warnings\n"
        f"def device_count(): return {devices}\n"
        f"def get_arch_list(): return {architectures!r}\n"
        "def is_available():\n"
        f"    if {said!r}: warnings.warn({said!r})\n"
        f"    return {devices} > 0\n"
    )
    return site


def spawn(code: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """A Python process of the test's own, which says on its standard output what the test waits for."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
