"""Runs the ``lmdeploy`` script with an API key that stands in no argument list.

A program's arguments can be read by every user of the machine, and lmdeploy takes its key as one. So this file, run
by the interpreter of the script (which may be another than ours: it uses the standard library alone), takes the key
from the environment, removes it there so that the server's own children do not get it, and adds it to ``sys.argv``.

    PYTHON launcher.py SCRIPT serve api_server …

With ``-m`` in the place of SCRIPT, lmdeploy is run as a module.
"""

import os
import runpy
import sys

KEY_VARIABLE = "BUNDLE_SERVER_KEY"


def main() -> None:
    script, *arguments = sys.argv[1:]
    key = os.environ.pop(KEY_VARIABLE)
    # A script finds its own folder first on the path, not ours.
    ours = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != ours]  # noqa: PTH100
    sys.argv = [script, *arguments, "--api-keys", key]
    if script == "-m":
        runpy.run_module("lmdeploy", run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(script)))  # noqa: PTH100, PTH120
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
