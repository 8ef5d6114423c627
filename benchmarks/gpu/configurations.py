"""What is run on the GPU, what tells most first."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bundle.checkpoints.internlm2 import make_checkpoint
from bundle.serving.machine import Installation

Backend = Literal["pytorch", "turbomind"]

TALKATIVE_TOKENS = 128
"""How long the talkative checkpoint's replies are."""

_MANY_SLOTS = "1024"
_MANY_SIZES = ("1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "768", "1024")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One run of ``bundle eval-local``.

    Attributes:
        name: As in the table.
        backend: lmdeploy's engine.
        talkative: Whether the checkpoint is one that goes on after the letter.
        options: Of ``eval-local``.
        server_options: Of lmdeploy.
    """

    name: str
    backend: Backend
    talkative: bool = False
    options: Sequence[str] = ()
    server_options: Sequence[str] = ()


def configurations(*, turbomind: bool, made: bool, quick: bool) -> list[Configuration]:
    """What to run.

    Args:
        turbomind: Whether TurboMind's libraries load.
        made: Whether the checkpoint is the made one, which replies with a letter and no more: what early decisions
            save is then measured with a talkative one.
        quick: Only what the program does by itself, and what early decisions save.
    """
    backends: list[Backend] = ["turbomind", "pytorch"] if turbomind else ["pytorch"]
    chosen = [Configuration(backend, backend) for backend in backends]
    if made:
        bound = (f"--max-out-len={TALKATIVE_TOKENS}",)
        talking = [
            Configuration(f"{backend}, talkative", backend, talkative=True, options=bound) for backend in backends
        ]
        chosen += [one for pair in ((one, _whole(one)) for one in talking) for one in pair]
    else:
        chosen += [_whole(one) for one in chosen]
    if quick:
        return chosen
    return [
        *chosen,
        *(
            Configuration(f"{backend}, order of the files", backend, options=("--no-prefix-order",))
            for backend in backends
        ),
        Configuration("pytorch, no CUDA graphs", "pytorch", server_options=("--eager-mode",)),
        Configuration(
            "pytorch, slots and graphs of lmdeploy's own on an H100",
            "pytorch",
            options=("--concurrency", _MANY_SLOTS),
            server_options=("--max-batch-size", _MANY_SLOTS, "--cudagraph-capture-batch-sizes", *_MANY_SIZES),
        ),
    ]


def _whole(configuration: Configuration) -> Configuration:
    return replace(
        configuration,
        name=f"{configuration.name}, whole replies",
        options=(*configuration.options, "--full-replies"),
    )


_GENERATION_CONFIG, _TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
_END_OF_TURN, _ANOTHER_MARK = "<|im_end|>", "<|action_end|>"


def made(work: Path) -> Path:
    """The made checkpoint in the shape of InternLM2.5 1.8B, made now (3.8 GB) or at an earlier time.

    Raises:
        CheckpointError: It cannot be written.
    """
    directory = work / "internlm2_5-1_8b"
    if not directory.is_dir():
        make_checkpoint(directory, like="internlm2_5-1_8b", say=lambda line: print(line, flush=True))
    return directory


def talkative(checkpoint: Path, directory: Path) -> Path:
    """Put a checkpoint into ``directory`` that is the same, but for which the end of a turn ends no reply.

    A made checkpoint then goes on with other letters, as a model does that explains what it chose. Its chat template
    ends turns with another mark, for requests would name the one that it ends them with. The weights are links.
    """
    directory.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in (_GENERATION_CONFIG, _TOKENIZER_CONFIG):
            (directory / file.name).symlink_to(file.resolve())
    settings = json.loads((checkpoint / _GENERATION_CONFIG).read_text(encoding="utf-8"))
    settings["eos_token_id"] = settings["eos_token_id"][0]  # the end of a text, which it never writes
    (directory / _GENERATION_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    settings = json.loads((checkpoint / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    settings["chat_template"] = settings["chat_template"].replace(_END_OF_TURN, _ANOTHER_MARK)
    (directory / _TOKENIZER_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    return directory


_TIMEOUT_S = 120.0


def loads_turbomind(lmdeploy: Installation) -> bool:
    """Whether TurboMind's libraries are there and can be loaded."""
    # Where they cannot, 0.18 leaves this name out of the package, and older ones cannot import the package at all.
    return _imports(lmdeploy, "from lmdeploy.turbomind import TurboMind")


def has_metrics(lmdeploy: Installation) -> bool:
    """Whether the package is there without which lmdeploy starts only with ``--disable-metrics``."""
    return _imports(lmdeploy, "import prometheus_client")


def _imports(lmdeploy: Installation, statement: str) -> bool:
    try:
        result = subprocess.run(
            [lmdeploy.interpreter, "-c", statement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0
