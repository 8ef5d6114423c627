"""Which GPUs lmdeploy's own engine, TurboMind, has code for.

The library in the wheels on PyPI holds code for sm_70 to sm_90a in 0.12, and for sm_100a and sm_120a as well from 0.13
on. lmdeploy takes TurboMind for every architecture that it knows, whatever the GPU.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from bundle.serving.gpus import Gpu

Version = tuple[int, ...]

_EXACTLY: Final = {(9, 0): (0, 12), (10, 0): (0, 13), (12, 0): (0, 13)}
_FROM: Final = ((7, 0), (7, 5), (8, 0))


def has_turbomind_code(capability: Version, lmdeploy: Version) -> bool:
    """Whether the TurboMind of this lmdeploy contains code for a GPU of this compute capability.

    Code runs on every GPU of the same major capability that is not older than what it was built for; that of 9.0a,
    10.0a and 12.0a on these alone (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    if capability in _EXACTLY:
        return lmdeploy >= _EXACTLY[capability]
    return any(built[0] == capability[0] and built <= capability for built in _FROM)


def without_turbomind(gpus: Iterable[Gpu], capabilities: Mapping[str, Version], lmdeploy: Version) -> str | None:
    """The first GPU that it has no code for, as far as the driver tells; None if there is none."""
    for gpu in gpus:
        capability = capabilities.get(gpu.uuid)
        if capability is not None and not has_turbomind_code(capability, lmdeploy):
            return f"{gpu.name} (compute capability {'.'.join(map(str, capability))})"
    return None
