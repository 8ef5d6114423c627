"""Run the command line as ``python -m bundle``."""

from bundle.cli import main

main()
