"""What lmdeploy 0.12 to 0.18 and its torch need of the driver and of the GPU.

Where this comes from:

- The oldest driver of each CUDA: docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1
  (12.x: 525 or newer, 13.x: 580 or newer), and the CUDA Toolkit's release notes for the exact versions on Linux.
- TurboMind (lmdeploy's own engine) is built for CUDA 12: the wheels of 0.12 to 0.18 on PyPI require
  nvidia-cuda-runtime-cu12, their README says "CUDA 12.8" since 0.13, and the library in them holds code for the
  capabilities below (sm_70 to sm_90a in 0.12; sm_100a and sm_120a as well from 0.13 on).
- torch on PyPI is built for CUDA 12.8 up to 2.10 and for CUDA 13.0 from 2.11 on, as its own requirements say
  (nvidia-cuda-runtime-cu12==12.8.90, cuda-toolkit==13.0.2), and lmdeploy takes it up to 2.12.1 since 0.16. CUDA 13
  has no code for Volta (7.0) any more: github.com/pytorch/pytorch/pull/175253.
"""

import re
from typing import Final

Version = tuple[int, ...]

_OLDEST_DRIVER: Final[dict[int, Version]] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
_TURBOMIND_EXACTLY: Final = {(9, 0): (0, 12), (10, 0): (0, 13), (12, 0): (0, 13)}
_TURBOMIND_FROM: Final = ((7, 0), (7, 5), (8, 0))

OLDEST_CAPABILITY: Final = (7, 0)
OLDEST_CAPABILITY_CUDA_13: Final = (7, 5)

CUDA_OF_NEW_TORCH: Final = "13.0"
"""What pip installs torch for where nothing holds it back."""
OLDER_TORCH: Final = "torch<2.11"
"""The newest torch that is built for CUDA 12.8, and so works with older drivers and Volta."""


def numbers(version: str) -> Version:
    """The numbers in a version, none where it has none."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def oldest_driver(cuda: str) -> Version | None:
    """The oldest driver, on Linux, that runs what was built for this CUDA; None where that is not known."""
    return _OLDEST_DRIVER.get((numbers(cuda) or (0,))[0])


def has_turbomind_code(capability: Version, lmdeploy: Version) -> bool:
    """Whether the TurboMind of this lmdeploy holds code for a GPU of this compute capability.

    Code runs on every GPU of the same major capability that is not older than what it was built for; that of 9.0a,
    10.0a and 12.0a on these alone (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    if capability in _TURBOMIND_EXACTLY:
        return lmdeploy >= _TURBOMIND_EXACTLY[capability]
    return any(built[0] == capability[0] and built <= capability for built in _TURBOMIND_FROM)


def dotted(version: Version) -> str:
    """A version as people write it; a driver's last number has two digits."""
    if len(version) == 3:
        return f"{version[0]}.{version[1]}.{version[2]:02d}"
    return ".".join(map(str, version))
