"""Why servers do not start, or die, as far as their logs and processes show it.

What is known here is common to all servers, as torch 2, transformers 4.56 to 5, safetensors and uvicorn word it; each
engine adds what is its own.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A cause, and the log lines that reveal it, as regular expressions. No line that is a warning counts.

    Attributes:
        cause: The end of a sentence about the server. ``{0}`` is the first group of the line's pattern.
        remedy: What to do about it, in whole sentences.
        fatal: After such a line a server that hasn't answered yet never will, even if it keeps running.
        telling: Such a line shows the cause of a death, but a healthy server may print it, too.
        passing: A start failed of it, and a second one may well succeed. Such failures are considered last: they may be
            another's consequence.
        vague: It only counts if nothing else is known and the log holds no exception that could be the cause.
    """

    cause: str
    remedy: str
    fatal: tuple[str, ...] = ()
    telling: tuple[str, ...] = ()
    passing: bool = False
    vague: bool = False


@dataclass(frozen=True, slots=True)
class Signs:
    """What shows how a kind of server fares.

    Attributes:
        activities: Patterns of log lines and what they say about a start ("loading weights {} %").
        failures: Its own known failures, the special before the vague.
        deadly: Patterns of log lines after which a server that was ready answers nothing any more.
        vital: The pattern of the command lines of child processes without which it can answer nothing; None if unknown.
        lasting: The pattern of the names of those among them that end only with it, while it starts, too; None if
            any of them may be a helper.
    """

    activities: tuple[tuple[str, str], ...] = ()
    failures: tuple[KnownFailure, ...] = ()
    deadly: tuple[str, ...] = ()
    vital: str | None = None
    lasting: str | None = None


def raised(kinds: str, text: str) -> str:
    """The pattern of an exception's own line: at the end of a traceback, logged by lmdeploy or vLLM, or from C++."""
    logged = r"(?:\(\w[^)]*\) )?(?:\S.* - ERROR - (?:\S+:\d+ - )?|ERROR [\d-]+ [\d:]+ \[\S+:\d+\] )?"
    return rf"(?:^{logged}(?:[A-Za-z_][\w.]*\.)?(?:{kinds}): |^ *what\(\): |\[TM\]\[(?:ERROR|FATAL)\]).*?{text}"


def rejected_options(help_command: str) -> KnownFailure:
    """That argparse does not take the server's options."""
    return KnownFailure(
        "it rejects its options: {0}.",
        f"`{help_command}` shows what may follow `--`.",
        telling=("error: (unrecognized arguments: .*|argument .*|the following arguments are required: .*)",),
    )


TORCH_ERRORS: Final = "OutOfMemoryError|RuntimeError|AcceleratorError|AssertionError|ValueError"
COPY_AGAIN: Final = "Copy or download the checkpoint again, and compare its files with the source."
OTHER_WEIGHTS: Final = (
    "Take config.json and the weights from the same model; weights with other names were saved while the model was "
    "wrapped in something else: save the model within."
)
INSTALL_TOGETHER: Final = (
    "Install compatible versions, in an environment of their own: `pip install '.[gpu]'` for lmdeploy, "
    "`pip install '.[cpu]'` for the CPU engine."
)
_USE_CPU: Final = "or use --engine transformers, which runs on the CPU."
NO_MEMORY: Final = "See `dmesg | tail`; give the machine or the container more memory, or use a smaller checkpoint."

PORT_TAKEN: Final = KnownFailure(
    "another process is using its port.",
    "Try again: every start chooses a port that is free.",
    # uvicorn ends after this, but threads of the engine may keep its process alive.
    fatal=("error while attempting to bind on address", raised("OSError", r"\[Errno (?:98|48)\]")),
    telling=(r"Port \d+ is not available",),
    passing=True,
)
OUT_OF_GPU_MEMORY: Final = KnownFailure(
    "the GPU has too little free memory.",
    "`nvidia-smi` shows what uses it; choose another GPU with --gpu.",
    fatal=(
        raised(TORCH_ERRORS, "(?:CUDA out of memory|CUDA (?:runtime )?error: out of memory|No enough gpu memory)"),
        raised(TORCH_ERRORS, "CUBLAS_STATUS_ALLOC_FAILED"),
    ),
    telling=("(?i:cuda.*out of memory)|CUDA_ERROR_OUT_OF_MEMORY",),
)
NO_GPU: Final = KnownFailure(
    "it sees no NVIDIA GPU.",
    f"Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, {_USE_CPU}",
    fatal=(raised(TORCH_ERRORS, "(?:No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device)"),),
)
ENGINE_GONE: Final = KnownFailure(
    "its engine's process ended without an error message; probably the kernel killed it for lack of memory.",
    NO_MEMORY,
    vague=True,
)

# The first failure that a line reveals is the cause, so the special stands before the vague.
COMMON_FAILURES: Final = (
    PORT_TAKEN,
    KnownFailure(
        "the installed torch is a CPU-only build.",
        f"Install torch for CUDA (`pip install '.[gpu]'`), {_USE_CPU}",
        fatal=(raised(TORCH_ERRORS, "Torch not compiled with CUDA enabled"),),
    ),
    KnownFailure(
        "the NVIDIA driver is too old for the CUDA version its packages were built with.",
        "Update the driver, or install a torch built for the CUDA version that `nvidia-smi` shows.",
        fatal=(
            raised(TORCH_ERRORS, "(?:CUDA driver version is insufficient|driver on your system is too old)"),
            raised(TORCH_ERRORS, "forward compatibility was attempted on non supported HW"),
        ),
    ),
    NO_GPU,
    KnownFailure(
        "its packages were not built for this GPU.",
        "Install releases of torch and the engine that support this GPU, or use --engine transformers.",
        telling=(
            "no kernel image is available for execution on the device",
            raised(TORCH_ERRORS, "no executable data type for this device"),
        ),
    ),
    OUT_OF_GPU_MEMORY,
    KnownFailure(
        "its GPUs cannot communicate: {0}.",
        "Use one GPU, or set NCCL_DEBUG=INFO and look again; a container may need more shared memory (`--shm-size`).",
        telling=(r"(NCCL error.*|nccl(?:Unhandled|System|Internal)\w*Error.*)",),
    ),
    KnownFailure(
        "the GPU reported an error: {0}.",
        "`nvidia-smi` and `dmesg | tail` show the state of the GPU.",
        telling=(raised(TORCH_ERRORS, r"CUDA (?:runtime )?error: ([^/]*?)(?= *(?:/|$))"),),
    ),
    KnownFailure(
        "triton compiles kernels on this machine and needs a C compiler.",
        "Install one: `apt-get install gcc`.",
        telling=("Failed to find C compiler",),
    ),
    KnownFailure(
        "triton compiles kernels on this machine and needs Python's C headers.",
        "Install them: `apt-get install python3-dev`.",
        telling=(r"Python\.h: No such file",),
    ),
    KnownFailure(
        "a library is missing: {0}.",
        INSTALL_TOGETHER,
        telling=(raised("ImportError|OSError", r"(lib[\w.+-]+\.so[\d.]*): cannot open shared object file"),),
    ),
    KnownFailure(
        "its compiled packages are incompatible: {0}.",
        INSTALL_TOGETHER,
        telling=(raised("ImportError|OSError", r"(undefined symbol.*|version `[^']+' not found.*)"),),
    ),
    KnownFailure(
        "the checkpoint contains Python code, which may not run without --trust-remote-code.",
        "Read that code; if you trust it, add --trust-remote-code.",
        telling=("(?:option|argument) `trust_remote_code=True`|contains custom code which must be executed",),
    ),
    KnownFailure(
        "the checkpoint's code needs packages that are not installed: {0}.",
        "Install them with pip.",
        telling=(r"packages that were not found in your environment: ([\w, -]+)",),
    ),
    KnownFailure(
        "it does not know the architecture {0}.",
        "Use another --engine, or a release of this one that knows it.",
        telling=(
            "has model type `([^`]+)` but Transformers does not recognize",
            raised("ValueError", r"Unrecognized configuration class <class '(?:[\w-]+\.)*(\w+)'>"),
        ),
    ),
    KnownFailure(
        "the checkpoint's code is incompatible with the installed transformers: {0}.",
        INSTALL_TOGETHER,
        telling=(
            raised("ImportError", r"(cannot import name \S+ from 'transformers[^']*')"),
            raised("ModuleNotFoundError", r"(No module named 'transformers\.[\w.]+')"),
            raised("AttributeError", r"('?\w*(?:Config|Tokenizer\w*|Cache)'? object has no attribute '\w+')"),
        ),
    ),
    KnownFailure(
        "the weights cannot be read: {0}.",
        COPY_AGAIN,
        fatal=(raised("SafetensorError", "(Error while deserializing .*)"),),
        telling=(
            raised("SafetensorError", "(.+)"),
            raised("RuntimeError", "(failed to locate weight files .*|Failed to find valid (?:checkpoint|loader) .*)"),
            raised("OSError", "(Error no file named .*)"),
        ),
    ),
    KnownFailure(
        "the weights do not match config.json: {0}.",
        "Use the config.json that came with these weights.",
        telling=(r"(size mismatch for [^\s:]+)", r"(Attempted to load weight .*)"),
    ),
    KnownFailure(
        "the weights lack a tensor that the architecture needs: {0}.",
        COPY_AGAIN,
        telling=(raised("KeyError", r"'((?:model|output|lm_head|transformer)\.[\w.]+)'"),),
    ),
    KnownFailure(
        "the disk or the shared memory (/dev/shm) is full.",
        "Free some space: `df -h` shows where. In a container, see `--shm-size`.",
        telling=("No space left on device",),
    ),
    KnownFailure(
        "the machine has too little memory.",
        "Free some, or use a smaller checkpoint.",
        telling=("(?:can't|Cannot) allocate memory", "^MemoryError"),
    ),
    KnownFailure(
        "it has reached its limit of open files.",
        "Raise the limit: `ulimit -n 65536`.",
        telling=(raised("OSError", "Too many open files"),),
    ),
)
