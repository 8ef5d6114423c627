"""Run the command line as ``python -m bundle``."""

from bundle.cli.main import main

main()
