"""``torch.cuda`` that says there is a device, and means the CPU by it."""

import contextlib
import functools
import os
import types
from collections.abc import Callable
from typing import Any, Self

_MEMORY = int(os.environ.get("LMDEPLOY_ON_CPU_MIB", "2048")) << 20
_FACTORIES = {
    *("arange", "as_tensor", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace", "ones"),
    *("ones_like", "rand", "rand_like", "randint", "randn", "randperm", "tensor", "zeros", "zeros_like"),
}
_METHODS = {"new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"}


class Event:
    """A CUDA event: everything before it is done."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, stream: Any = None) -> None: ...
    def wait(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 0.0


class Stream:
    """A CUDA stream: what is put into it is done at once."""

    device: Any = None

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def synchronize(self) -> None: ...
    def wait_stream(self, other: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def query(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None: ...


def patch(torch: Any) -> None:
    """Change ``torch``, which has just been imported."""
    cpu = torch.device("cpu")
    Stream.device = cpu
    _patch_cuda(torch.cuda)
    torch._C._cuda_clearCublasWorkspaces = lambda: None

    def meant(device: Any) -> Any:
        if isinstance(device, bool) or device is None:
            return device
        if isinstance(device, int):
            return cpu
        if isinstance(device, str):
            return cpu if device.startswith("cuda") else device
        return cpu if isinstance(device, torch.device) and device.type == "cuda" else device

    def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            if "device" in named:
                named["device"] = meant(named["device"])
            named.pop("pin_memory", None)
            return function(*arguments, **named)

        return called

    def moved(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def to(self: Any, *arguments: Any, **named: Any) -> Any:
            if "device" in named:
                named["device"] = meant(named["device"])
            if arguments and isinstance(arguments[0], str | torch.device | int):
                arguments = (meant(arguments[0]), *arguments[1:])
            return function(self, *arguments, **named)

        return to

    for name in _FACTORIES:
        setattr(torch, name, on_cpu(getattr(torch, name)))
    for name in _METHODS:
        setattr(torch.Tensor, name, on_cpu(getattr(torch.Tensor, name)))
    torch.Tensor.to = moved(torch.Tensor.to)
    torch.nn.Module.to = moved(torch.nn.Module.to)
    for name in ("cuda", "pin_memory"):
        setattr(torch.Tensor, name, lambda self, *_, **__: self)
    torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.Tensor.record_stream = lambda self, stream: None
    torch.nn.functional.linear = _in_float32(torch.nn.functional.linear)


def _in_float32(linear: Callable[..., Any]) -> Callable[..., Any]:
    """Most processors emulate bfloat16: products in float32, rounded afterwards, take an eighth of the time."""

    def product(x: Any, weight: Any, bias: Any = None) -> Any:
        return linear(x.float(), weight.float(), bias if bias is None else bias.float()).to(x.dtype)

    return product


def _patch_cuda(cuda: Any) -> None:
    current = Stream()
    properties = types.SimpleNamespace(
        name="CPU",
        major=8,
        minor=0,
        total_memory=_MEMORY,
        multi_processor_count=2,
        uuid="0",
        warp_size=32,
        shared_memory_per_block_optin=101376,
        regs_per_multiprocessor=65536,
    )
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (8, 0),
        "get_device_properties": properties,
        "get_device_name": "CPU",
        "mem_get_info": (_MEMORY, _MEMORY),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_allocated": 0,
        "current_stream": current,
        "default_stream": current,
        "is_bf16_supported": True,
        "set_device": None,
        "empty_cache": None,
        "ipc_collect": None,
        "synchronize": None,
        "manual_seed": None,
        "manual_seed_all": None,
    }
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    cuda.Stream, cuda.Event = Stream, Event
    cuda.stream = cuda.device = lambda *_, **__: contextlib.nullcontext()
