"""Random InternLM2 weights: what a model of that shape starts its training from."""

import zlib
from collections.abc import Iterator

from bundle.internlm2.safetensors_file import Tensor

_ELEMENTS = 4 * 2**20


def random_tensor(tensor: Tensor, seed: int, std: float) -> Iterator[bytes]:
    """The bytes of a BF16 tensor, in blocks: ones for a norm, zeros for a bias, else normal around 0.

    They depend on the seed and the tensor's name alone, not on which other tensors are made.
    """
    import numpy as np

    if tensor.dtype != "BF16":
        raise ValueError(f"{tensor.name}: random weights are BF16, not {tensor.dtype}")
    left = tensor.nbytes // 2
    if tensor.name.endswith(("norm.weight", ".bias")):
        yield np.full(left, 0x3F80 if tensor.name.endswith("norm.weight") else 0, dtype="<u2").tobytes()
        return
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.name.encode())]))
    while left > 0:
        values = generator.standard_normal(min(_ELEMENTS, left), dtype=np.float32)
        values *= np.float32(std)
        bits = values.view(np.uint32)
        # BF16 is the upper half of float32; round half to even, as every converter does.
        bits += ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        yield (bits >> np.uint32(16)).astype("<u2").tobytes()
        left -= values.size
