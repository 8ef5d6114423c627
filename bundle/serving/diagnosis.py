"""From the log of a server that did not start, or died, to a cause and a remedy.

What is known here is common to all servers, as torch 2, transformers 4.56 to 5, safetensors and uvicorn word it; each
engine adds what is its own.
"""

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
class Diagnosis:
    """Why a server is gone, and the remedy.

    Attributes:
        passing: Whether a second start may well succeed.
        line: The line of the log that shows it; None if the cause is not certain.
    """

    cause: str
    remedy: str
    passing: bool = False
    line: str | None = field(default=None, compare=False)


def raised(kinds: str, text: str) -> str:
    """The pattern of an exception's own line: at the end of a traceback, logged by lmdeploy or vLLM, or from C++."""
    logged = r"(?:\(\w[^)]*\) )?(?:\S.* - ERROR - (?:\S+:\d+ - )?|ERROR [\d-]+ [\d:]+ \[\S+:\d+\] )?"
    return rf"(?:^{logged}(?:[A-Za-z_][\w.]*\.)?(?:{kinds}): |^ *what\(\): |\[TM\]\[(?:ERROR|FATAL)\]).*?{text}"


TORCH_ERRORS: Final = "OutOfMemoryError|RuntimeError|AcceleratorError|AssertionError|ValueError"
COPY_AGAIN: Final = "Copy or download the checkpoint again, and compare its files with the source."
INSTALL_TOGETHER: Final = (
    "Install compatible versions, in an environment of their own: `pip install '.[gpu]'` for lmdeploy, "
    "`pip install '.[cpu]'` for the CPU engine."
)
_USE_CPU: Final = "or use --engine transformers, which runs on the CPU."
NO_MEMORY: Final = "See `dmesg | tail`; give the machine or the container more memory, or use a smaller checkpoint."

_PORT_TAKEN: Final = KnownFailure(
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
    _PORT_TAKEN,
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

GUARDIAN_KILLED: Final = Diagnosis(
    "the process that guards it was killed.",
    "A user killed it, or the kernel for lack of memory: see `dmesg | tail`.",
)

_BY_SIGNAL: Final = {
    signal.SIGKILL: Diagnosis("it was killed, probably by the kernel for lack of memory.", NO_MEMORY),
    signal.SIGXCPU: Diagnosis("its CPU time limit was used up.", "Raise the limit (`ulimit -t`)."),
    signal.SIGBUS: Diagnosis(
        "memory it had mapped was missing: the shared memory is full, or a weight file was truncated.",
        "See `df -h /dev/shm` and the sizes of the weight files; in a container, see `--shm-size`.",
    ),
    signal.SIGILL: Diagnosis(
        "this CPU lacks instructions that its packages were compiled for.", "Install builds of them for this CPU."
    ),
    signal.SIGSEGV: Diagnosis(
        "it crashed in compiled code.",
        "Check with `bundle doctor` that torch, the engine and the driver fit together.",
    ),
}
# SIGKILL leaves no time for words, so only what was printed immediately before can have to do with it.
_LINES_BEFORE_SIGKILL: Final = 5
# What a server that was ready missed while it started, it can do without.
_LINES_OF_AN_END: Final = 10

_WARNING: Final = re.compile(r"\bWARN(?:ING)?\b|\b[A-Z]\w*Warning: |^\[W\b")
_MODULE_MISSING: Final = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_ERROR_LINE: Final = re.compile(
    r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Failure)\b|\bERROR\b|\bFATAL\b|^(?i:fatal|error)\b"
)

_EXCEPTION: Final = re.compile(raised(r"\w*(?:Error|Exception)", "") + r"|^ *Value error, ")  # the latter: pydantic's
_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINED: Final = ("The above exception was", "During handling of the above exception")
_SEE_ABOVE: Final = re.compile(
    r"See (?:root cause|stack trace) (?:\(?above|for root)|engine process (?:is not alive|exited before)"
)
"""What follows from an error that was printed before; the last two are lmdeploy's, of a dead engine process."""
_BARE_EXCEPTION: Final = re.compile(r"[\w.]+(?:Error|Exception)")
_CARETS: Final = re.compile(r"[\s^~]*")

# What to install for a missing module; any other has its package's name.
_PACKAGES: Final = {
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


def diagnose(
    log_lines: Sequence[str],
    returncode: int | None,
    failures: Sequence[KnownFailure] = (),
    *,
    was_ready: bool = False,
    engine_gone: bool = False,
) -> Diagnosis:
    """What a server's log and its end say about the cause.

    Args:
        returncode: As in ``subprocess``: negative for a signal; None while it is still running.
        failures: The engine's own, which are considered before those in common.
        was_ready: Whether it had started, so that no failure of a start is the cause.
        engine_gone: Whether a process of its engine has ended, which explains an end without an exception.
    """
    signum = None if returncode is None else _signal_of(returncode)
    if signum == signal.SIGKILL:
        log_lines = log_lines[-_LINES_BEFORE_SIGKILL:]
    near_the_end = log_lines[-_LINES_OF_AN_END if was_ready else 0 :]
    exception = last_exception(log_lines)
    return (
        known_failure(log_lines, failures, was_ready=was_ready)
        or (None if signum else _module_missing(near_the_end if exception is None else _serious(near_the_end)))
        or (None if signum is None else _BY_SIGNAL.get(signum))
        or (Diagnosis(ENGINE_GONE.cause, ENGINE_GONE.remedy) if engine_gone and exception is None else None)
        or _last_error(log_lines)
    )


def fatal(line: str, failures: Sequence[KnownFailure] = ()) -> bool:
    """Whether a server that prints this line while starting is certain to fail."""
    patterns = (pattern for failure in (*failures, *COMMON_FAILURES) for pattern in failure.fatal)
    return not _WARNING.search(line) and any(re.search(pattern, line) for pattern in patterns)


def exit_in_words(returncode: int) -> str:
    """``exit code 1`` or ``killed by SIGKILL``."""
    signum = _signal_of(returncode)
    return f"exit code {returncode}" if signum is None else f"killed by {signum.name}"


def known_failure(
    log_lines: Sequence[str], failures: Sequence[KnownFailure] = (), *, was_ready: bool = False
) -> Diagnosis | None:
    """What a server's log reveals of its ways to fail; None if nothing. See ``diagnose``."""
    considered = sorted((*failures, *COMMON_FAILURES), key=lambda failure: (failure.passing, failure.vague))
    considered = [failure for failure in (_PORT_TAKEN, *considered) if not (was_ready and failure.passing)]
    # A traceback after a warning belongs to it, or is of a crash that had nothing to do with it.
    return _revealed(_serious(log_lines), considered) or _revealed(
        [line for line in log_lines if not _WARNING.search(line)], considered
    )


def _revealed(lines: Sequence[str], failures: Sequence[KnownFailure]) -> Diagnosis | None:
    serious = lines[::-1]
    for failure in failures:
        if failure.vague and any(_EXCEPTION.search(line) and not _SEE_ABOVE.search(line) for line in serious):
            continue
        for pattern in (*failure.fatal, *failure.telling):
            for line in serious:
                if match := re.search(pattern, line):
                    what = match.group(1).strip().rstrip(".") if match.re.groups else ""
                    return Diagnosis(failure.cause.replace("{0}", what), failure.remedy, failure.passing, line)
    return None


def last_exception(log_lines: Sequence[str]) -> str | None:
    """The last line of a server's log that names an exception; None if none does."""
    for line in reversed(_serious(log_lines)):
        if _EXCEPTION.search(line) and not _SEE_ABOVE.search(line):
            return line.strip()
    return None


def _serious(log_lines: Sequence[str]) -> list[str]:
    """The lines that are neither warnings nor part of a traceback that was logged with one."""
    kept = []
    warned = within = False
    for line in log_lines:
        if warned and line.startswith(_TRACEBACK):
            within = True
        elif within and (line.startswith((" ", "\t")) or not line.strip()):
            continue
        elif within:  # the exception; one that it was raised from may follow
            within = False
        elif not (warned and line.startswith(_CHAINED)):
            warned = _WARNING.search(line) is not None
            if not warned:
                kept.append(line)
    return kept


def _module_missing(log_lines: Sequence[str]) -> Diagnosis | None:
    for line in reversed(log_lines):
        if match := _MODULE_MISSING.search(line):
            module = match.group(1)
            package = _PACKAGES.get(module.partition(".")[0], module.partition(".")[0])
            return Diagnosis(
                f"the Python module {module} is not installed.", f"Install it: `pip install {package}`.", line=line
            )
    return None


def _last_error(log_lines: Sequence[str]) -> Diagnosis:
    printed = [line.strip() for line in log_lines if line.strip()]
    if not printed:
        return Diagnosis("it printed nothing that explains it.", "`bundle doctor` shows what is installed.")
    first_hand = [line for line in printed if not _SEE_ABOVE.search(line)]
    exceptions = [line for line in first_hand if _EXCEPTION.search(line) and not _WARNING.search(line)]
    last = (exceptions or [line for line in first_hand if _ERROR_LINE.search(line)] or printed)[-1]
    if _BARE_EXCEPTION.fullmatch(last):  # as of an assertion: what was asserted stands before
        before = [line for line in printed[: printed.index(last)] if not _CARETS.fullmatch(line)]
        last = f"{last}: {before[-1]}" if before else last
    return Diagnosis(f"its last output was {last!r}.", "The lines before it may say more.")


def _signal_of(returncode: int) -> signal.Signals | None:
    """The signal that ended a process; a shell in between reports it as 128 plus its number."""
    with suppress(ValueError):
        if returncode < 0:
            return signal.Signals(-returncode)
        if returncode > 128:
            return signal.Signals(returncode - 128)
    return None
