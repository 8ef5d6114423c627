"""A checkpoint's weights, quantized in the layouts of public checkpoints by rounding to the nearest.

It is for seeing whether an engine serves the format; a real quantization calibrates, and loses less.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import load_file, save_file

Method = Literal["awq", "fp8"]

_GROUP: Final = 128
_PACKED_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""Of the eight 4-bit numbers in an int32, lowest first: AutoAWQ's ``gemm`` layout."""
_SETTINGS: Final[Mapping[Method, dict[str, Any]]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "version": "gemm", "zero_point": True},
    "fp8": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [_GROUP, _GROUP],
    },
}
_LARGEST_E4M3: Final = 448.0


def quantized(checkpoint: Path, directory: Path, method: Method) -> Path:
    """Write ``checkpoint`` into ``directory`` with the weights of its layers quantized; embeddings and output stay.

    Args:
        checkpoint: With safetensors; InternLM2's, whose layers' matrices have sides divisible by 128.
        directory: Where to; it is made.
        method: ``awq`` is 4 bits in groups of 128 inputs, ``fp8`` is e4m3 in blocks of 128 by 128.
    """
    directory.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "model.safetensors.index.json"):
            (directory / file.name).symlink_to(file.resolve())
    weight_map: dict[str, str] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        tensors = {
            new: value for name, tensor in load_file(file).items() for new, value in _stored(name, tensor, method)
        }
        save_file(tensors, directory / file.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file.name)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = _SETTINGS[method]
    if method == "awq":
        config["torch_dtype"] = "float16"  # of the scales, as AutoAWQ writes them
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def _stored(name: str, tensor: torch.Tensor, method: Method) -> Iterator[tuple[str, torch.Tensor]]:
    """One weight under the names and in the forms in which the method stores it."""
    stem = name.removesuffix(".weight")
    is_layer = ".layers." in name and tensor.dim() == 2
    if not is_layer:
        yield name, tensor.half() if method == "awq" else tensor
        return
    store: Callable[[torch.Tensor], dict[str, torch.Tensor]] = awq if method == "awq" else fp8
    for part, value in store(tensor.float()).items():
        yield f"{stem}.{part}", value.contiguous()


def awq(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """``weight`` (out, in) as AWQ's qweight (in, out/8), qzeros (in/128, out/8) and scales (in/128, out)."""
    outputs, inputs = weight.shape
    groups = weight.T.reshape(inputs // _GROUP, _GROUP, outputs)
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scales = ((high - low) / 15).clamp(min=1e-6).half().float()
    zeros = (-low / scales).round().clamp(0, 15)
    numbers = ((groups / scales).round() + zeros).clamp(0, 15).to(torch.int32)
    return {
        "qweight": _packed(numbers.reshape(inputs, outputs)),
        "qzeros": _packed(zeros.squeeze(1).to(torch.int32)),
        "scales": scales.squeeze(1).half(),
    }


def _packed(numbers: torch.Tensor) -> torch.Tensor:
    """4-bit numbers (rows, columns), eight columns in an int32."""
    packed = torch.zeros(numbers.shape[0], numbers.shape[1] // 8, dtype=torch.int32)
    for place, column in enumerate(_PACKED_ORDER):
        packed |= numbers[:, column::8] << (4 * place)
    return packed


def fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """``weight`` (out, in) as e4m3 numbers, and what to multiply each block of 128 by 128 with."""
    outputs, inputs = weight.shape
    blocks = weight.reshape(outputs // _GROUP, _GROUP, inputs // _GROUP, _GROUP)
    scales = (blocks.abs().amax((1, 3), keepdim=True) / _LARGEST_E4M3).clamp(min=1e-12)
    return {
        "weight": (blocks / scales).reshape(outputs, inputs).to(torch.float8_e4m3fn),
        "weight_scale_inv": scales.reshape(outputs // _GROUP, inputs // _GROUP),
    }
