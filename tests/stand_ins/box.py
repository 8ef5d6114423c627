"""A machine with a GPU and lmdeploy, as far as this program can see: stand-ins of both on PATH."""

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.serving import machine as installation

if TYPE_CHECKING:  # a soak test has no need of it
    import pytest

STAND_INS = Path(__file__).parent
ROOT = STAND_INS.parents[1]

GPU = (0, "GPU-00000000-0000-0000-0000-000000000000", "NVIDIA H100 80GB HBM3", 81559, 80000, "570.86.15")


def with_gpus(count: int) -> dict[str, str]:
    """A variable of the environment: the machine has so many such GPUs."""
    gpus = [GPU, *((number, f"GPU-{number}", *GPU[2:]) for number in range(1, count))]
    return {"NVIDIA_SMI_STAND_IN": json.dumps({"gpus": gpus})}


# Importing transformers takes seconds of processor time, so what the tokenizer's probe said is kept: of the same files
# of a checkpoint (its first argument), asked in the same way (its last one, a file).
_PYTHON_WITH_KEPT_PROBE = """#!/bin/sh
case "$*" in
*/tokenizer_probe/__main__.py*)
    kept="{kept}/$({{ find -L "$2" -type f ! -name "*.safetensors" -exec cksum {{}} + |
        sed "s|$2||" | sort; cat "$3"; }} | sha256sum | cut -d " " -f 1)"
    if [ ! -e "$kept" ]; then
        "{python}" "$@" >"$kept.$$" || exit
        mv "$kept.$$" "$kept"
    fi
    exec cat "$kept" ;;
esac
exec "{python}" "$@"
"""
KEPT_PROBES = "BUNDLE_TESTS_KEPT_PROBES"
"""The variable that names a directory for what tokenizers' probes said; without it they are always asked."""


def install(directory: Path, *names: str, python: str = sys.executable) -> Path:
    """Put executables of these stand-ins into ``directory``."""
    directory.mkdir(exist_ok=True)
    for name in names:
        source = (STAND_INS / f"{name.replace('-', '_')}.py").read_text()
        _write_executable(directory / name, f"#!{python}\n{source}")
    return directory


def _interpreter(directory: Path) -> str:
    """That of the stand-ins."""
    kept = os.environ.get(KEPT_PROBES)
    if kept is None:
        return sys.executable
    script = directory / "python"
    _write_executable(script, _PYTHON_WITH_KEPT_PROBE.format(python=sys.executable, kept=kept))
    return str(script)


def _write_executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def gpu_box(
    directory: Path,
    *,
    behaviour: str = "good",
    gpus: Sequence[Sequence[object]] = (GPU,),
    processes: Sequence[Sequence[object]] = (),
) -> dict[str, str]:
    """The environment of such a machine; ``behaviour`` is that of its lmdeploy."""
    executables = install(directory / "bin", "lmdeploy", "nvidia-smi", python=_interpreter(directory))
    # As pip leaves it: its version can be read, and no process has to be asked.
    beside = directory / "lib" / "python3" / "site-packages"
    for name in ("lmdeploy", "lmdeploy-0.18.0.dist-info"):
        (beside / name).mkdir(parents=True, exist_ok=True)
    (beside / "lmdeploy" / "__init__.py").touch()
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return environment | {
        "PATH": f"{executables}{os.pathsep}{os.environ['PATH']}",
        "BUNDLE_LMDEPLOY": str(executables / "lmdeploy"),  # the environment of these tests may hold the real one
        "PYTHONPATH": str(ROOT),
        "LMDEPLOY_STAND_IN": behaviour,
        "LMDEPLOY_STAND_IN_RECORD": str(directory / "record.json"),
        "NVIDIA_SMI_STAND_IN": json.dumps({"gpus": list(gpus), "processes": list(processes)}),
        "BUNDLE_CACHE": str(directory / "cache"),
        "BUNDLE_GPU_LOCKS": str(directory / "locks"),  # its GPUs are no other machine's
    }


def without_servers_of_our_own(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Let lmdeploy and vLLM be missing in the environment of these tests, where a user's may hold them."""
    monkeypatch.setattr(installation, "_beside_us", lambda name: None)
    monkeypatch.setattr(installation, "_in_our_environment", lambda name: None)
