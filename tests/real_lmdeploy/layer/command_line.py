"""lmdeploy's own command line on a machine without a GPU: only the device under its engine is stood in for.

Real are its command line, API server, templates, tokenizer handling, the engine's child process, its scheduler, its
paged cache with prefix caching, its models and their weight loading. Variables of the environment:

LMDEPLOY_ON_CPU_MIB        memory of the "GPU", in MiB (2,048)
LMDEPLOY_ON_CPU_FAULTS     a file of faults that happen in the engine (see faults.py)
LMDEPLOY_ON_CPU_TURBOMIND  1: TurboMind's road, with a stand-in for its C++ part (see turbomind_extension.py)
LMDEPLOY_ON_CPU_RACE       a file; if it exists, the next start loses a race (see import_hooks.py), and the file goes
"""

import os
import sys
import types
from typing import Any

import cpu_backend
import cpu_device
import import_hooks
import turbomind_extension

import_hooks.after_import("torch", cpu_device.patch)
import_hooks.after_import("lmdeploy.pytorch.backends.selector", cpu_backend.patch)
# 0.14 to 0.17 import a triton kernel for speculative decoding, which nothing here does.
reject_sampler: Any = types.ModuleType("lmdeploy.pytorch.spec_decode.reject_sampler")
reject_sampler.RejectionSampler = object
sys.modules[reject_sampler.__name__] = reject_sampler
if os.environ.get("LMDEPLOY_ON_CPU_TURBOMIND"):
    sys.modules["lmdeploy.turbomind._turbomind"] = turbomind_extension.module
    import_hooks.after_import("lmdeploy.turbomind.turbomind", turbomind_extension.patch)
import_hooks.after_import("multiprocessing.managers", import_hooks.decide_the_race)

from lmdeploy.cli import run  # noqa: E402  the hooks come first

if __name__ == "__main__":
    sys.exit(run())
