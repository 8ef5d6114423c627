"""What is run on the GPU, what tells most first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
    backends: list[Backend] = ["pytorch", "turbomind"] if turbomind else ["pytorch"]
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
