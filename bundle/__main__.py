"""The command ``bundle``, also ``python -m bundle``."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends it without a traceback."""
    if (before := signal.getsignal(signal.SIGINT)) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bundle.cli.main import main as run  # imported late: slow, and Ctrl-C is heeded first

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
