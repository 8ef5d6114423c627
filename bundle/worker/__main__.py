"""``python -m bundle.worker``: serve and ask as standard input says; see `bundle.fleet.wire`."""

import os
import sys

from bundle.pipeline.signals import run_with_signals
from bundle.worker.worker import Worker


def main() -> None:
    """Run until standard input ends, or nothing more comes of it."""
    lines = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not part of the protocol
    worker = Worker(lines)
    sys.exit(run_with_signals(worker.run, say=worker.say, kill=worker.kill))


if __name__ == "__main__":
    main()
