"""What lmdeploy prints and runs: what a start is doing, why it fails, and that it is dead."""

from dataclasses import replace
from typing import Final

from bundle.serving.known_failures import (
    ENGINE_GONE,
    NO_GPU,
    OUT_OF_GPU_MEMORY,
    KnownFailure,
    Signs,
    raised,
    rejected_options,
)

_ACTIVITIES: Final = (
    (r"^Loading: +(\d+)%", "loading weights {} %"),
    (r"(?:Loading|loading) (?:weights|checkpoint|safetensors)[^%]*?(\d+)%", "loading weights {} %"),
    (r"Convert(?:ing)? to turbomind format[^%]*?(\d+)%", "converting weights {} %"),
    (r"[Cc]aptur\w+ (?:cuda|CUDA) ?[Gg]raph", "capturing CUDA graphs"),
    (r"[Ww]arm(?:ing)? ?up", "warming up"),
    (r"HINT:\s+Please open|Application startup complete", "the HTTP server is up"),
)

_FAILURES: Final = (
    rejected_options("lmdeploy serve api_server --help"),
    replace(NO_GPU, fatal=(*NO_GPU.fatal, r"<CUDA> check failed!|^cuda is not available\.")),
    replace(
        OUT_OF_GPU_MEMORY,
        remedy="`nvidia-smi` shows what uses it; choose another GPU with --gpu, or give the server a smaller cache "
        "with `-- --cache-max-entry-count 0.4`.",
    ),
    KnownFailure(
        "triton does not work on this machine.",
        "Run `python -m lmdeploy.pytorch.check_env.triton_custom_add` to see why.",
        fatal=("<Triton> check failed!",),
    ),
    KnownFailure(
        "it does not know the architecture {0}.",
        "Use --engine transformers, or a release of lmdeploy that knows it.",
        telling=(
            raised("RuntimeError", r"Can not found rewrite for (?:architectures|auto_map): \[?'?([\w.]+)"),
            raised("AssertionError", r"turbomind does not support ([^\s]+)"),
        ),
    ),
    KnownFailure(
        "it does not take weights quantized as config.json says: {0}.",
        "Serve the checkpoint that they were quantized from, or try --engine vllm.",
        telling=(
            raised("TypeError", r"Unsupported quant method: (.*)"),
            raised("RuntimeError", r"Unsupported quant method: (.*)"),
            raised("AssertionError", r"unsupported quant[_ ]config: (.*)"),
            raised("ValueError", r"(Unsupported group_size=\S+ for model_format=\S+)\."),
        ),
    ),
    KnownFailure(
        "the checkpoint's own chat template does not work: {0}.",
        "Add one to its tokenizer_config.json, or choose one of lmdeploy's with `-- --chat-template NAME`.",
        telling=(raised("ValueError", "Try apply_chat_template failed: (.*)"),),
    ),
    replace(ENGINE_GONE, fatal=("PyTorch ZMQ engine process exited before publishing RPC server port",)),
    KnownFailure(
        "its engine process was cut off while starting (a race in lmdeploy).",
        "Try again.",
        telling=("^EOFError(?:$|:)",),
        passing=True,
    ),
)

_ENGINE_DIED: Final = (
    r"PyTorch ZMQ engine process is not alive",
    r"PyTorch engine request loop is not alive",
    r"Engine main loop failed\.",
)
"""The API server lives on after these."""

SIGNS: Final = Signs(
    activities=_ACTIVITIES,
    failures=_FAILURES,
    deadly=_ENGINE_DIED,
    # The PyTorch engine runs in a child process, or in several; TurboMind in the server itself.
    vital=r"multiprocessing\.spawn\b",
    # What that process calls itself from 0.14 on. Before it has, lmdeploy itself notices its end within a second.
    lasting="^ZMQMPEngine$",
)
