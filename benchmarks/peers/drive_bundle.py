"""The same questions through this program, beside the others."""

import os
import sys
from pathlib import Path


def main(base_url: str, data: Path, scratch: Path) -> None:
    """Ask everything."""
    arguments = ["eval-remote", "simulated", "--base-url", base_url, "--task", "ceval_gen", "--data", str(data)]
    os.execv(sys.executable, [sys.executable, "-m", "bundle", *arguments, "--out", str(scratch)])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
