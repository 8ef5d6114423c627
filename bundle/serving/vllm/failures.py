"""What vLLM 0.32 prints when it fails. Its configuration reports an error as pydantic does: "  Value error, …"."""

from dataclasses import replace
from typing import Final

from bundle.serving.diagnosis import NO_GPU, OUT_OF_GPU_MEMORY, KnownFailure, raised

ENGINE_DIED: Final = (r"\bEngineDeadError: ", r"(?:Worker proc|RayWorkerProc) \S+ died unexpectedly")
"""Its API server lives on for a moment after these."""

_NO_SPACE: Final = (
    "Reduce the context length with `-- --max-model-len 8192`, or give it more memory: on a GPU "
    "`-- --gpu-memory-utilization 0.95`, on the CPU VLLM_CPU_KVCACHE_SPACE=GIB under `[vllm.env]` in a model file."
)
_NO_MEMORY: Final = "See `dmesg | tail`; give the machine or the container more memory, or use a smaller checkpoint."


def _refused(text: str) -> str:
    """The pattern of an error of its configuration, of its engine, or of a worker as the engine repeats it."""
    return rf"(?:^\s*Value error, |\bValueError: |Worker failed with error '){text}"


FAILURES: Final = (
    KnownFailure(
        "it does not understand its options: {0}.",
        "`python -m vllm.entrypoints.openai.api_server --help` shows what may follow `--`.",
        telling=("error: (unrecognized arguments: .*|argument .*|the following arguments are required: .*)",),
    ),
    replace(
        OUT_OF_GPU_MEMORY,
        remedy="`nvidia-smi` shows what uses it; choose another GPU with --gpu, or give the server less to hold with "
        "`-- --max-num-seqs 64 --max-model-len 8192`.",
    ),
    KnownFailure(
        "the GPU has less free memory than it was told to use: {0}.",
        "`nvidia-smi` shows what uses it; choose another GPU with --gpu, or use less of it with "
        "`-- --gpu-memory-utilization 0.5`.",
        telling=(_refused(r"Free memory on device .*?(\([\d.]+/[\d.]+ GiB\)) on startup is less than desired"),),
    ),
    KnownFailure(
        "its KV cache is too small for the longest prompt and reply it should take ({0} tokens).",
        _NO_SPACE,
        telling=(_refused(r"To serve at least one request with the model'?s'? max seq len \((\d+)\)"),),
    ),
    KnownFailure(
        "no memory is left for its KV cache.",
        _NO_SPACE,
        telling=(_refused("(?:No available memory for the cache blocks|Cannot auto-fit max_model_len)"),),
    ),
    KnownFailure(
        "the machine has too little free memory for its KV cache: {0}.",
        "Free some, or give it less with VLLM_CPU_KVCACHE_SPACE=GIB under `[vllm.env]` in a model file.",
        telling=(_refused(r"Available memory on node \d+ (\([\d.]+/[\d.]+ GiB\)) on kv cache allocation is less"),),
    ),
    KnownFailure(
        "it was asked to take longer prompts and replies than the model can: {0}.",
        "Give a smaller number after `-- --max-model-len`.",
        telling=(_refused(r"(User-specified max_model_len \(\d+\) is greater than .*?=[\d.]+)"),),
    ),
    KnownFailure(
        "it does not know the architecture {0}.",
        "Use another --engine, or a release of vLLM that knows it.",
        telling=(
            _refused(r"Model architectures \['?(\w+)[^\]]*\] (?:are not supported|failed to be inspected)"),
            _refused(r"(\w+) has no vLLM implementation"),
        ),
    ),
    KnownFailure(
        "the path of its temporary files is too long for a socket.",
        "Set TMPDIR to a shorter path, such as /tmp.",
        telling=(r"ipc path .* is longer than \d+ characters|AF_UNIX path too long",),
    ),
    replace(NO_GPU, telling=(raised("RuntimeError", "Failed to infer device type"),)),
    KnownFailure(
        "a worker of its engine was killed, probably by the kernel for lack of memory.",
        _NO_MEMORY,
        telling=(r"Worker proc \S+ died unexpectedly \(exit code: -9\)",),
    ),
    KnownFailure(
        "its engine's process ended without a word; probably the kernel killed it for lack of memory.",
        _NO_MEMORY,
        telling=(r"\bEngineDeadError: EngineCore encountered an issue",),
        vague=True,
    ),
    KnownFailure(
        "its compiled code needs a compiler that is not installed.",
        "Install one (`apt-get install g++`), or do without with `-- --enforce-eager`.",
        telling=("InvalidCxxCompiler|No working C\\+\\+ compiler found",),
    ),
)
