"""What servers print when they fail, as torch 2, transformers 4.56 to 5, safetensors, uvicorn and lmdeploy word it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A cause, and the lines that tell of it.

    Attributes:
        cause: The end of a sentence that begins with the server. ``{0}`` is the first group of the line's pattern.
        remedy: What to do about it, with the same ``{0}``.
        fatal: A server that has not answered yet never will after such a line, even if it goes on running.
        telling: Such a line tells the cause of a death, but may also be printed by a server that lives.
    """

    cause: str
    remedy: str
    fatal: tuple[re.Pattern[str], ...] = ()
    telling: tuple[re.Pattern[str], ...] = ()


def _raised(kinds: str, text: str) -> re.Pattern[str]:
    """An exception's own line: at the end of a traceback, logged by lmdeploy, or from C++. Never a warning."""
    logged = r"(?:\(\w[^)]*\) )?(?:\S.* - ERROR - (?:\S+:\d+ - )?)?"
    return re.compile(
        rf"(?:^{logged}(?:[A-Za-z_][\w.]*\.)?(?:{kinds}): |^ *what\(\): |\[TM\]\[(?:ERROR|FATAL)\]).*?{text}"
    )


def _line(text: str) -> re.Pattern[str]:
    return re.compile(text)


_TORCH_ERRORS = "OutOfMemoryError|RuntimeError|AcceleratorError|AssertionError|ValueError"
_COPY_AGAIN = "Copy or download the checkpoint again, and compare its files with the source."
_INSTALL_TOGETHER = (
    "Install versions that belong together, in an environment of their own: `pip install '.[gpu]'` for lmdeploy, "
    "`pip install '.[cpu]'` for the CPU engine."
)

PORT_TAKEN = KnownFailure(
    "another process listens on its port already.",
    "Let a free port be chosen, or end that process.",
    # uvicorn ends after this, but threads of the engine may keep its process alive.
    fatal=(_line("error while attempting to bind on address"), _raised("OSError", r"\[Errno (?:98|48)\]")),
    telling=(_line(r"Port \d+ is not available"),),
)

# The first failure that a line tells of is the cause, so what is special stands before what is vague.
KNOWN_FAILURES = (
    PORT_TAKEN,
    KnownFailure(
        "it does not understand its options: {0}.",
        "See `lmdeploy serve api_server --help` or `transformers serve --help` for what may stand after `--`.",
        telling=(
            _line(r"error: (unrecognized arguments: .*|argument .*|the following arguments are required: .*)"),
            _line(r"(No such option: \S+|Invalid value for .*)"),
        ),
    ),
    KnownFailure(
        "the installed torch is a CPU build.",
        "Install torch for CUDA (`pip install '.[gpu]'`), or use --engine transformers, which runs on the CPU.",
        fatal=(_raised(_TORCH_ERRORS, "Torch not compiled with CUDA enabled"),),
    ),
    KnownFailure(
        "the NVIDIA driver is too old for the CUDA version that its packages were built with.",
        "Update the driver, or install a torch built for the CUDA version that `nvidia-smi` shows.",
        fatal=(
            _raised(_TORCH_ERRORS, "(?:CUDA driver version is insufficient|driver on your system is too old)"),
            _raised(_TORCH_ERRORS, "forward compatibility was attempted on non supported HW"),
        ),
    ),
    KnownFailure(
        "it sees no NVIDIA GPU.",
        "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --engine transformers, which runs on the CPU.",
        fatal=(
            _raised(_TORCH_ERRORS, "(?:No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device)"),
            _line(r"<CUDA> check failed!|^cuda is not available\."),
        ),
    ),
    KnownFailure(
        "it was not built for this GPU.",
        "Install releases of torch and lmdeploy that support this GPU, or use --engine transformers.",
        telling=(
            _line("no kernel image is available for execution on the device"),
            _raised(_TORCH_ERRORS, "no executable data type for this device"),
        ),
    ),
    KnownFailure(
        "the GPU has too little free memory.",
        "See with `nvidia-smi` who holds it, choose another GPU with --gpu, or have it keep a smaller cache with "
        "`-- --cache-max-entry-count 0.4`.",
        fatal=(
            _raised(
                _TORCH_ERRORS, "(?:CUDA out of memory|CUDA (?:runtime )?error: out of memory|No enough gpu memory)"
            ),
            _raised(_TORCH_ERRORS, "CUBLAS_STATUS_ALLOC_FAILED"),
        ),
        telling=(_line("(?i:cuda.*out of memory)|CUDA_ERROR_OUT_OF_MEMORY"),),
    ),
    KnownFailure(
        "its GPUs cannot talk to each other: {0}.",
        "Use one GPU, or set NCCL_DEBUG=INFO and look again; a container may need more shared memory (`--shm-size`).",
        telling=(_line(r"(NCCL error.*|nccl(?:Unhandled|System|Internal)\w*Error.*)"),),
    ),
    KnownFailure(
        "the GPU reports a failure: {0}.",
        "See `nvidia-smi` and `dmesg | tail` for the state of the GPU.",
        telling=(_raised(_TORCH_ERRORS, r"CUDA (?:runtime )?error: ([^/]*?)(?= *(?:/|$))"),),
    ),
    KnownFailure(
        "triton compiles its kernels on this machine, and there is no C compiler.",
        "Install one (`apt-get install gcc`), or have lmdeploy use turbomind.",
        telling=(_line("Failed to find C compiler"),),
    ),
    KnownFailure(
        "triton compiles its kernels on this machine, and Python's C headers are missing.",
        "Install them (`apt-get install python3-dev`), or have lmdeploy use turbomind.",
        telling=(_line(r"Python\.h: No such file"),),
    ),
    KnownFailure(
        "triton does not work on this machine.",
        "Run `python -m lmdeploy.pytorch.check_env.triton_custom_add` to see why.",
        fatal=(_line("<Triton> check failed!"),),
    ),
    KnownFailure(
        "a library is missing: {0}.",
        _INSTALL_TOGETHER,
        telling=(_raised("ImportError|OSError", r"(lib[\w.+-]+\.so[\d.]*): cannot open shared object file"),),
    ),
    KnownFailure(
        "compiled packages do not fit each other: {0}.",
        _INSTALL_TOGETHER,
        telling=(_raised("ImportError|OSError", r"(undefined symbol.*|version `[^']+' not found.*)"),),
    ),
    KnownFailure(
        "the checkpoint brings Python code along, and there is no leave to run it.",
        "Read that code, and if you trust it, give leave with --trust-remote-code.",
        telling=(_line("(?:option|argument) `trust_remote_code=True`|contains custom code which must be executed"),),
    ),
    KnownFailure(
        "the checkpoint's code needs packages that are missing: {0}.",
        "Install them: `pip install` and these names.",
        telling=(_line(r"packages that were not found in your environment: ([\w, -]+)"),),
    ),
    KnownFailure(
        "the packages for serving are missing.",
        "Install them: `pip install '.[cpu]'`.",
        telling=(_raised("ImportError", "Missing dependencies for serving"),),
    ),
    KnownFailure(
        "it does not know the architecture {0}.",
        "Use the other --engine, or a release of this one that knows it.",
        telling=(
            _line("has model type `([^`]+)` but Transformers does not recognize"),
            _raised("RuntimeError", r"Can not found rewrite for (?:architectures|auto_map): \[?'?([\w.]+)"),
            _raised("ValueError", r"Unrecognized configuration class <class '(?:[\w-]+\.)*(\w+)'>"),
            _raised("AssertionError", r"turbomind does not support ([^\s]+)"),
        ),
    ),
    KnownFailure(
        "the checkpoint's code does not fit the installed version of transformers: {0}.",
        _INSTALL_TOGETHER,
        telling=(
            _raised("ImportError", r"(cannot import name \S+ from 'transformers[^']*')"),
            _raised("ModuleNotFoundError", r"(No module named 'transformers\.[\w.]+')"),
            _raised("AttributeError", r"('?\w*(?:Config|Tokenizer\w*|Cache)'? object has no attribute '\w+')"),
        ),
    ),
    KnownFailure(
        "the weights cannot be read: {0}.",
        _COPY_AGAIN,
        fatal=(_raised("SafetensorError", "(Error while deserializing .*)"),),
        telling=(
            _raised("SafetensorError", "(.+)"),
            _raised("RuntimeError", "(failed to locate weight files .*|Failed to find valid (?:checkpoint|loader) .*)"),
            _raised("OSError", "(Error no file named .*)"),
        ),
    ),
    KnownFailure(
        "the weights do not fit config.json: {0}.",
        "Use the config.json that came with these weights.",
        telling=(_line(r"(size mismatch for [^\s:]+)"), _line(r"(Attempted to load weight .*)")),
    ),
    KnownFailure(
        "a tensor that the architecture needs is missing from the weights: {0}.",
        _COPY_AGAIN,
        telling=(_raised("KeyError", r"'((?:model|output|lm_head|transformer)\.[\w.]+)'"),),
    ),
    KnownFailure(
        "the disk or the shared memory (/dev/shm) is full.",
        "Make room: `df -h` shows where. In a container, see `--shm-size`.",
        telling=(_line("No space left on device"),),
    ),
    KnownFailure(
        "the machine has too little memory.",
        "Free some, or use a smaller checkpoint.",
        telling=(_line("(?:can't|Cannot) allocate memory"), _line("^MemoryError")),
    ),
    KnownFailure(
        "it may not open enough files at once.",
        "Raise the limit: `ulimit -n 65536`.",
        telling=(_line("Too many open files"),),
    ),
)

# What to install for a module that is missing; one that is not here bears the name of its package.
PACKAGES = {
    "lmdeploy": "'.[gpu]'",
    "_turbomind": "--force-reinstall '.[gpu]'",
    "torch": "'.[gpu]'` or `pip install '.[cpu]'",
    "transformers": "'.[gpu]'` or `pip install '.[cpu]'",
    "ray": "'ray[default]'",
    "google": "protobuf",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "flash_attn": "flash-attn --no-build-isolation",
}
