"""What the lmdeploy of this machine can do."""

import subprocess

from bundle.serving.installation import Installation

_TIMEOUT_S = 120.0


def loads_turbomind(lmdeploy: Installation) -> bool:
    """Whether TurboMind's libraries are there and can be loaded."""
    # Where they cannot, 0.18 leaves this name out of the package, and older ones cannot import the package at all.
    return _imports(lmdeploy, "from lmdeploy.turbomind import TurboMind")


def has_metrics(lmdeploy: Installation) -> bool:
    """Whether the package is there without which lmdeploy starts only with ``--disable-metrics``."""
    return _imports(lmdeploy, "import prometheus_client")


def _imports(lmdeploy: Installation, statement: str) -> bool:
    try:
        result = subprocess.run(
            [lmdeploy.interpreter, "-c", statement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0
