"""Stands in for ``nvidia-smi``: GPUs and their processes as ``NVIDIA_SMI_STAND_IN`` (JSON) lists them."""

import json
import os
import sys

said = json.loads(os.environ["NVIDIA_SMI_STAND_IN"])
query = sys.argv[1]
if query.startswith("--query-gpu="):
    rows = said["gpus"]
elif query.startswith("--query-compute-apps="):
    rows = said.get("processes", [])
else:
    sys.exit(f"unknown option {query}")
for row in rows:
    print(", ".join(map(str, row)))
