"""What the supervisor must know of a server: how to start it, and what it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bundle.serving.gpus import Gpu


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server process.

    Attributes:
        command: The argument list. Other users of the machine can read it, so it never holds a key.
        environment: Variables added to our own environment; only this user can read them.
        secrets: Variables with values that must never be written anywhere. Added to the environment as well.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class Engine(Protocol):
    """One kind of server, for one checkpoint."""

    @property
    def name(self) -> str:
        """What the engine is called, as in ``--engine``."""

    @property
    def served_name(self) -> str:
        """The model's name in ``/v1/models`` and in requests."""

    @property
    def version(self) -> str:
        """The version of the server's program."""

    @property
    def architectures(self) -> frozenset[str] | None:
        """The architectures the server's program knows; None where that cannot be told beforehand."""

    @property
    def interpreter(self) -> str:
        """The Python that runs the server, and with which its tokenizer must be proved."""

    @property
    def tokenizer_directory(self) -> Path:
        """The directory the server loads its tokenizer from; known once ``prepare`` has run."""

    @property
    def concurrency(self) -> int:
        """How many requests in flight keep this server busy."""

    @property
    def longest_silence_s(self) -> float:
        """Seconds without any part of a reply, while requests are in flight, after which this server hangs."""

    @property
    def gpus(self) -> Sequence[Gpu]:
        """The GPUs it is started on, as they were before that; none for a server on the CPU."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Do what must be done before the server can start, telling ``say`` about anything that takes time.

        Raises:
            BundleError: The checkpoint or this machine cannot be served with.
        """

    def launch(self, host: str, port: int, api_key: str) -> Launch:
        """How to start the server on ``host`` and ``port``, letting in whoever holds ``api_key``.

        Raises:
            UsageError: Others than this machine could reach it there, and its key would not keep them out.
        """

    def activity(self, line: str) -> str | None:
        """What a line of the server's log says about its start ("loading weights 40 %"), or None if nothing."""
