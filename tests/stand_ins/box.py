"""A machine with a GPU and lmdeploy, as far as this program can see: stand-ins of both on PATH."""

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

STAND_INS = Path(__file__).parent
ROOT = STAND_INS.parents[1]

GPU = (0, "GPU-00000000-0000-0000-0000-000000000000", "NVIDIA H100 80GB HBM3", 81559, 80000, "570.86.15")


def install(directory: Path, *names: str) -> Path:
    """Put executables of these stand-ins into ``directory``."""
    directory.mkdir(exist_ok=True)
    for name in names:
        script = directory / name
        source = (STAND_INS / f"{name.replace('-', '_')}.py").read_text()
        script.write_text(f"#!{sys.executable}\n{source}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return directory


def gpu_box(
    directory: Path,
    *,
    behaviour: str = "good",
    gpus: Sequence[Sequence[object]] = (GPU,),
    processes: Sequence[Sequence[object]] = (),
) -> dict[str, str]:
    """The environment of such a machine; ``behaviour`` is that of its lmdeploy."""
    executables = install(directory / "bin", "lmdeploy", "nvidia-smi")
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return environment | {
        "PATH": f"{executables}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LMDEPLOY_STAND_IN": behaviour,
        "LMDEPLOY_STAND_IN_RECORD": str(directory / "record.json"),
        "NVIDIA_SMI_STAND_IN": json.dumps({"gpus": list(gpus), "processes": list(processes)}),
        "BUNDLE_CACHE": str(directory / "cache"),
    }
