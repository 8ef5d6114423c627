"""What an engine is: it turns a job into the specification of a server."""

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from bundle.checkpoints import Checkpoint
from bundle.config.model_files import EngineSettings
from bundle.errors import UsageError
from bundle.serving.arguments import Arguments
from bundle.serving.conversion import Servable
from bundle.serving.gpu_locks import GpuLocks
from bundle.serving.gpus import Gpu
from bundle.serving.known_failures import Signs
from bundle.serving.machine import Installation, Machine
from bundle.system.findings import Check, Finding
from bundle.system.guarded import SAFE_PATH, without_keys


@dataclass(frozen=True, slots=True)
class Job:
    """What to serve, and how the user wants it served.

    Attributes:
        settings: The model file's, for this engine.
        arguments: What follows ``--``; it wins over the model file's.
        gpu: As in ``--gpu``; None for the GPUs with the most free memory.
        wait_s: Seconds to wait for GPUs that are not free.
    """

    checkpoint: Checkpoint
    machine: Machine = field(default_factory=Machine, compare=False)
    settings: EngineSettings = field(default_factory=EngineSettings)
    arguments: Sequence[str] = ()
    trust_remote_code: bool = False
    gpu: str | None = None
    wait_s: float = 0.0
    host: str = "127.0.0.1"

    @property
    def engine_arguments(self) -> Arguments:
        """The arguments of the model file and of the user."""
        return Arguments((*self.settings.args, *self.arguments))

    def concurrency(self, slots: int) -> int:
        """Maximum concurrent requests to a server that computes so many at once, unless the model file says it.

        A few more wait there, so that a slot that becomes free is taken without a round trip to us.
        """
        return self.settings.concurrency or slots + slots // 4


@dataclass(frozen=True)
class ServerSpec:
    """All that is needed to start a server, again and again.

    Attributes:
        engine: The engine's name, as in ``--engine``.
        served_name: The model's name in ``/v1/models`` and in requests.
        interpreter: The Python that runs the server, and under which its tokenizer must be checked.
        model: The directory that it loads.
        command: From a port and a private directory, which is removed after the server's end, to the argument list.
            Other users of the machine can read it, so it never holds a key.
        signs: What shows how its start goes, and that it is dead.
        key_variable: The variable that hands the server its API key; None where it has none.
        directory_variables: Variables that hold the path of the private directory, such as TMPDIR.
        files: Name -> content of what must be in the private directory.
        gpus: The GPUs it is started on, as they were before that; none for a server on the CPU.
        gpu_locks: Keep other runs away from them; None for a server on the CPU.
        concurrency: How many requests in flight keep the server busy.
        longest_silence_s: Seconds without any part of a reply after which a server with requests in flight hangs.
        dtype: What it computes in, for the record; None if it decides by itself.
        backend: Which of the engine's backends this program chose; likewise.
        greedy: Fields that a request needs besides temperature 0, so that the likeliest token is always taken.
        stop_field: The field of a request that names tokens which end a reply: ``stop`` (their texts) or
            ``stop_token_ids``; None if there is none.
        ends: Ids that end a reply besides those that engines find in the checkpoint's files.
        template: The chat template that the user chose instead of the checkpoint's; None if none, or it is not known.
        chosen_template: The option with which the user chose one that is not known; None if not.
        plain: Whether it is only asked to continue text: no chat template is used, and there may be none.
        scoring: How its server is asked how likely a text is, as in the client.
    """

    engine: str
    version: str
    served_name: str
    interpreter: str
    model: Servable
    command: Callable[[int, Path], tuple[str, ...]]
    signs: Signs
    environment: Mapping[str, str] = field(default_factory=dict)
    key_variable: str | None = None
    directory_variables: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    gpus: tuple[Gpu, ...] = ()
    gpu_locks: GpuLocks | None = field(default=None, repr=False, compare=False)
    concurrency: int = 1
    longest_silence_s: float = 180.0
    dtype: str | None = None
    backend: str | None = None
    greedy: Mapping[str, Any] = field(default_factory=dict)
    stop_field: Literal["stop", "stop_token_ids"] | None = None
    ends: frozenset[int] = frozenset()
    template: str | None = None
    chosen_template: str | None = None
    plain: bool = False
    scoring: Literal["echo", "generate"] = "echo"

    def environment_beside(self, ours: Mapping[str, str], api_key: str, directory: Path) -> dict[str, str]:
        """Our environment without keys meant for others, and what is the server's own: its key, its private directory.

        No server joins a Ray cluster that happens to be there: lmdeploy's PyTorch engine would with ``--tp 2``, and
        then wait for GPUs that the cluster does not have.
        """
        devices = ",".join(gpu.device for gpu in self.gpus)
        return {
            **{name: value for name, value in without_keys(ours).items() if not name.startswith("RAY_")},
            "RAY_ADDRESS": "local",
            **SAFE_PATH,
            **({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices} if self.gpus else {}),
            **dict.fromkeys(self.directory_variables, str(directory)),
            **self.environment,
            **({self.key_variable: api_key} if self.key_variable else {}),
        }


@dataclass(frozen=True)
class Engine(ABC):
    """One kind of server. An instance stands for one job; it holds nothing else, and nothing about it changes.

    What depends on the installed server raises ServerError if there is none, or it can't be used.
    """

    job: Job

    name: ClassVar[str]
    signs: ClassVar[Signs]

    @staticmethod
    @abstractmethod
    def checks(machine: Machine) -> tuple[Check, ...]:
        """What ``bundle doctor`` looks at for this engine."""

    @property
    def architectures(self) -> frozenset[str] | None:
        """The architectures that the installed server knows; None where only starting it would show that."""
        return None

    @property
    def refused_quantization(self) -> str | None:
        """Why the installed server cannot take the checkpoint's quantized weights; None if it can, or it is unknown."""
        return None

    @property
    def context_options(self) -> Mapping[str, int | None]:
        """The options that set the server's context length, in tokens; None where the server is given none."""
        return {}

    @property
    def gpu_count(self) -> int:
        """How many GPUs a server takes; 0 on the CPU."""
        return 0

    @property
    def scores_texts(self) -> bool:
        """Whether the installed server says how likely a text is that it is given."""
        return False

    @abstractmethod
    def forecast(self) -> tuple[list[Finding], str | None]:
        """What ``bundle doctor`` says of the job without preparing it.

        Beside findings, the interpreter to check the tokenizer with; None if that is only made when it is prepared.
        """

    @abstractmethod
    def prepare(self, say: Callable[[str], None], *, plain: bool = False, scores: bool = False) -> ServerSpec:
        """Do what must be done once, before the first server starts; say what takes time.

        Raises BundleError if the checkpoint can't be served, or not with what this machine has.

        Args:
            plain: As in `ServerSpec`.
            scores: Whether it will be asked how likely texts are.
        """

    @property
    def _installed(self) -> Installation:
        return self.job.machine.installation(self.name)


def no_weights(option: str) -> UsageError:
    """The error for an option with which a server computes with weights that are not the checkpoint's."""
    return UsageError(f"{option} serves a model without the checkpoint's weights: its score would mean nothing.")


def require_loopback(host: str, why: str) -> None:
    """Raise UsageError if other machines can reach an address; ``why`` they could use the server, in a sentence."""
    with suppress(ValueError):  # another name can stand for any address
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise UsageError(
        f"The server cannot listen on {host}, where other machines can reach it. {why}",
        remedy="Leave out --host, and use `ssh -L` to reach the server from another machine.",
    )
