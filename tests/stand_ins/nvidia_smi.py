"""Stands in for ``nvidia-smi``: GPUs and their processes as ``NVIDIA_SMI_STAND_IN`` (JSON) lists them.

``gpus`` are rows of index, UUID, name, total and free memory, driver and, where it is not 9.0, compute capability;
``processes`` are rows of GPU, pid, name and memory. With ``error`` it fails and says that, with ``hangs`` it never
ends, and with ``old`` it knows nothing of compute capabilities. ``--loop-ms=N`` has it tell again and again. The
stand-in of lmdeploy adds itself to the processes in the file ``LMDEPLOY_STAND_IN_GPU_PROCESSES``.
"""

import datetime
import json
import os
import sys
import time
from pathlib import Path

COLUMNS = ["index", "uuid", "name", "memory.total", "memory.free", "driver_version", "compute_cap"]

said = json.loads(os.environ["NVIDIA_SMI_STAND_IN"])
if said.get("hangs"):
    time.sleep(600)
if "error" in said:
    print(said["error"])
    sys.exit(9)
option, _, fields = sys.argv[1].partition("=")
if option == "--query-gpu":
    if said.get("old") and "compute_cap" in fields:
        print('Field "compute_cap" is not a valid field to query.')
        sys.exit(2)
    gpus = [
        {
            "utilization.gpu": 50,
            "memory.used": row[3] - row[4] if isinstance(row[3], int) else row[3],
            **dict(zip(COLUMNS, [*row, "9.0"], strict=False)),
        }
        for row in said["gpus"]
    ]
    pauses = [int(option.partition("=")[2]) / 1000 for option in sys.argv[2:] if option.startswith("--loop-ms=")]
    while pauses:
        for gpu in gpus:
            gpu["timestamp"] = f"{datetime.datetime.now():%Y/%m/%d %H:%M:%S.%f}"
            print(", ".join(str(gpu[name]) for name in fields.split(",")), flush=True)
        time.sleep(pauses[0])
    rows = [[gpu[name] for name in fields.split(",")] for gpu in gpus]
elif option == "--query-compute-apps":
    rows = said.get("processes", [])
    held = Path(os.environ.get("LMDEPLOY_STAND_IN_GPU_PROCESSES", "/nowhere"))
    rows += json.loads(held.read_text()) if held.exists() else []
else:
    sys.exit(f"unknown option {option}")
for row in rows:
    print(", ".join(map(str, row)))
