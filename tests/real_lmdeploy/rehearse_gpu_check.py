"""Rehearse ``make gpu-check`` on a machine without a GPU: real lmdeploy on the CPU layer, with a tiny checkpoint.

    PYTHONPATH=/tmp/site:$PWD python3 -m tests.real_lmdeploy.rehearse_gpu_check WORK [ARGUMENTS OF gpu_check]

lmdeploy and torch's CPU build are those that this interpreter imports. The checkpoint and the results are kept in WORK.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.real_lmdeploy.box import LmdeployBox

_LAYER = Path(__file__).with_name("layer")


def main() -> int:
    """Run the check, and return its exit code."""
    work, *arguments = sys.argv[1:]
    checkpoint = Path(work, "internlm2_5-1_8b").absolute()
    if not checkpoint.exists():
        make_checkpoint(checkpoint, like="tiny")
    with tempfile.TemporaryDirectory(prefix="gpu-check-rehearsal-") as folder:
        script = Path(folder, "installation", "bin", "lmdeploy")
        script.parent.mkdir(parents=True)
        path = f"import sys\nsys.path.insert(0, {str(_LAYER)!r})\n"
        script.write_text(f"#!{sys.executable}\n{path}{(_LAYER / 'command_line.py').read_text(encoding='utf-8')}")
        script.chmod(0o755)
        box = LmdeployBox(Path(folder), script.parents[1], {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
        check = [sys.executable, "-m", "benchmarks.gpu_check", "--work", work, *arguments]
        return subprocess.run(check, env=box.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
