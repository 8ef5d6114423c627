"""What vLLM prints and runs: what a start is doing, why it fails, and that it is dead."""

from dataclasses import replace
from typing import Final

from bundle.serving.known_failures import (
    ENGINE_GONE,
    NO_GPU,
    NO_MEMORY,
    OTHER_WEIGHTS,
    OUT_OF_GPU_MEMORY,
    KnownFailure,
    Signs,
    raised,
    rejected_options,
)

_ACTIVITIES: Final = (
    (r"Initializing a V1", "starting its engine"),
    (r"Starting to load model", "loading the model"),
    (r"Loading (?:safetensors|pt) checkpoint shards:\s*(\d+)%", "loading weights {} %"),
    (r"Compiling a graph|Dynamo bytecode transform time", "compiling"),
    (r"Capturing CUDA graphs?", "capturing CUDA graphs"),
    (r"Warming up model", "warming up"),
    (r"Application startup complete", "the HTTP server is up"),
)

_ENGINE_DIED: Final = (r"\bEngineDeadError: ", r"(?:Worker proc|RayWorkerProc) \S+ died unexpectedly")
"""Its API server lives on for a moment after these."""

_NO_SPACE: Final = (
    "Reduce the context length with `-- --max-model-len 8192`, or give it more memory: on a GPU "
    "`-- --gpu-memory-utilization 0.95`, on the CPU VLLM_CPU_KVCACHE_SPACE=GIB under `[vllm.env]` in a model file."
)


def _refused(text: str) -> str:
    """The pattern of an error of its configuration, of its engine, or of a worker as the engine repeats it."""
    return rf"(?:^\s*Value error, |\bValueError: |Worker failed with error '){text}"


_FAILURES: Final = (
    rejected_options("python -m vllm.entrypoints.openai.api_server --help"),
    replace(
        OUT_OF_GPU_MEMORY,
        remedy="`nvidia-smi` shows what uses it; choose another GPU with --gpu, or give the server less to hold with "
        "`-- --max-num-seqs 64 --max-model-len 8192`.",
    ),
    KnownFailure(
        "the GPU has less free memory than it is configured to use: {0}.",
        "`nvidia-smi` shows what uses it; choose another GPU with --gpu, or use less of it with "
        "`-- --gpu-memory-utilization 0.5`.",
        telling=(_refused(r"Free memory on device .*?(\([\d.]+/[\d.]+ GiB\)) on startup is less than desired"),),
    ),
    KnownFailure(
        "its KV cache is too small for the context length ({0} tokens).",
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
        "it was given a longer context than the model's: {0}.",
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
        "the checkpoint has no weights for {0}.",
        OTHER_WEIGHTS,
        telling=(_refused(r"Following weights were not initialized from checkpoint: \{(.*)\}"),),
    ),
    KnownFailure(
        "the path of its temporary files is too long for a socket.",
        "Set TMPDIR to a shorter path, such as /tmp.",
        telling=(r"ipc path .* is longer than \d+ characters|AF_UNIX path too long",),
    ),
    replace(NO_GPU, telling=(raised("RuntimeError", "Failed to infer device type"),)),
    KnownFailure(
        "a worker of its engine was killed, probably by the kernel for lack of memory.",
        NO_MEMORY,
        telling=(r"Worker proc \S+ died unexpectedly \(exit code: -9\)",),
    ),
    replace(
        ENGINE_GONE,
        fatal=("WorkerProc initialization failed due to an exception in a background process",),
        telling=(
            r"\bEngineDeadError: EngineCore encountered an issue",
            r"\bRuntimeError: Engine core initialization failed\. See root cause above",
        ),
    ),
    KnownFailure(
        "its build for the CPU has no code for weights quantized in this way ({0}).",
        "Serve the checkpoint it was quantized from, or use a build for GPUs.",
        telling=(raised("RuntimeError", r"_C::(\w+)\(\) expected at most 0 argument"),),
    ),
    KnownFailure(
        "its compiled code needs a compiler that is not installed.",
        "Install one (`apt-get install g++`), or do without with `-- --enforce-eager`.",
        telling=("InvalidCxxCompiler|No working C\\+\\+ compiler found",),
    ),
)

SIGNS: Final = Signs(
    activities=_ACTIVITIES,
    failures=_FAILURES,
    deadly=_ENGINE_DIED,
    vital="^VLLM::(?:EngineCore|Worker)",
    lasting="^VLLM::EngineCor",
)
