"""What an engine is: it turns a job into the specification of a server."""

import ipaddress
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from bundle.checkpoints import Checkpoint
from bundle.config.model_files import EngineSettings
from bundle.errors import UsageError
from bundle.serving.gpu_locks import GpuLocks
from bundle.serving.gpus import Gpu
from bundle.serving.known_failures import KnownFailure
from bundle.serving.machine import Installation, Machine
from bundle.system.findings import Check, Finding


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
    def engine_arguments(self) -> tuple[str, ...]:
        """The arguments of the model file and of the user, in the order in which they count."""
        return (*self.settings.args, *self.arguments)

    def concurrency(self, slots: int) -> int:
        """Maximum concurrent requests to a server that computes so many at once, unless the model file says it.

        A few more wait there, so that a slot that becomes free is taken without a round trip to us.
        """
        return self.settings.concurrency or slots + slots // 4


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server process.

    Attributes:
        command: The argument list. Other users of the machine can read it, so it never holds a key.
        secrets: Further variables, whose values must never be written anywhere.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ServerSpec:
    """All that is needed to start a server, again and again.

    Attributes:
        engine: The engine's name, as in ``--engine``.
        served_name: The model's name in ``/v1/models`` and in requests.
        interpreter: The Python that runs the server, and under which its tokenizer must be checked.
        own_code: Whether Python code in the directory of its tokenizer may run.
        command: From a port and a private directory, which is removed after the server's end, to the argument list.
        key_variable: The variable that hands the server its API key; None where it has none.
        directory_variables: Variables that hold the path of the private directory, such as TMPDIR.
        files: Name -> content of what must be in the private directory.
        gpus: The GPUs it is started on, as they were before that; none for a server on the CPU.
        gpu_locks: Keep other runs away from them; None for a server on the CPU.
        concurrency: How many requests in flight keep the server busy.
        longest_silence_s: Seconds without any part of a reply after which a server with requests in flight hangs.
        activities: Patterns of log lines and what they say about a start ("loading weights {} %").
        deadly: Patterns of log lines after which a server that was ready answers nothing any more.
        vital: The pattern of the command lines of child processes without which it can answer nothing; None if unknown.
        lasting: The pattern of the names of those among them that end only with it, while it starts, too; None if
            any of them may be a helper.
        dtype: What it computes in, for the record; None if it decides by itself.
        greedy: Fields that a request needs besides temperature 0, so that the likeliest token is always taken.
        stop_field: The field of a request that names tokens which end a reply: ``stop`` (their texts) or
            ``stop_token_ids``; None if there is none.
        ends: Ids that end a reply besides those that engines find in the checkpoint's files.
        template: The chat template that the user chose instead of the checkpoint's; None if none, or it is not known.
        chosen_template: The option with which the user chose one that is not known; None if not.
        plain: Whether it is only asked to continue text: no chat template is used, and there may be none.
        scoring: How its server is asked how likely a text is, as in the client.
        keep: Something to be kept alive as long as servers run, such as a lock on what they read.
    """

    engine: str
    version: str
    served_name: str
    interpreter: str
    tokenizer_directory: Path
    command: Callable[[int, Path], tuple[str, ...]]
    own_code: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    key_variable: str | None = None
    directory_variables: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    gpus: tuple[Gpu, ...] = ()
    gpu_locks: GpuLocks | None = field(default=None, repr=False, compare=False)
    concurrency: int = 1
    longest_silence_s: float = 180.0
    activities: tuple[tuple[str, str], ...] = ()
    failures: tuple[KnownFailure, ...] = ()
    deadly: tuple[str, ...] = ()
    vital: str | None = None
    lasting: str | None = None
    dtype: str | None = None
    greedy: Mapping[str, Any] = field(default_factory=dict)
    stop_field: Literal["stop", "stop_token_ids"] | None = None
    ends: frozenset[int] = frozenset()
    template: str | None = None
    chosen_template: str | None = None
    plain: bool = False
    scoring: Literal["echo", "generate"] = "echo"
    keep: Any = field(default=None, repr=False, compare=False)

    def launch(self, port: int, api_key: str, directory: Path) -> Launch:
        """How to start a server on a port that lets in whoever holds ``api_key``."""
        environment = {**dict.fromkeys(self.directory_variables, str(directory)), **self.environment}
        if self.gpus:
            devices = ",".join(gpu.device for gpu in self.gpus)
            environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices, **environment}
        secrets = {self.key_variable: api_key} if self.key_variable else {}
        return Launch(self.command(port, directory), environment, secrets)


@dataclass(frozen=True)
class Engine(ABC):
    """One kind of server. An instance stands for one job; it holds nothing else, and nothing about it changes.

    What depends on the installed server raises ServerError if there is none, or it can't be used.
    """

    job: Job

    name: ClassVar[str]
    failures: ClassVar[tuple[KnownFailure, ...]]
    """Known failures, the special before the vague."""

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


def option_value(arguments: Sequence[str], *names: str) -> str | None:
    """The value given for an option, by any of its names or the beginning of one; the last one counts."""
    value = None
    for argument, following in itertools.pairwise([*arguments, ""]):
        given, equals, rest = argument.partition("=")
        if any(_is(given, name) for name in names):
            value = rest if equals else following
    return value


def option_number(arguments: Sequence[str], *names: str) -> int | None:
    """The same of an option that takes a number; None also where it is given none."""
    value = option_value(arguments, *names)
    return int(value) if value and value.isdigit() else None


def is_given(option: str, arguments: Sequence[str]) -> bool:
    """Whether a long option is in an argument list, also by its beginning."""
    return any(_is(argument.partition("=")[0], option) for argument in arguments)


def refuse_options(names: Iterable[str], arguments: Sequence[str], server: str) -> None:
    """Raise UsageError if an argument list has one of the options that this program sets itself."""
    given = [argument.partition("=")[0] for argument in arguments]
    if taken := sorted({one for one in given if any(_is(one, name) for name in names)}):
        raise UsageError(
            f"{', '.join(taken)}: these {server} options are set by bundle.",
            remedy="Leave them out; address and adapter are set with --host and --adapter.",
        )


def no_weights(option: str) -> UsageError:
    """The error for an option with which a server computes with weights that are not the checkpoint's."""
    return UsageError(f"{option} serves a model without the checkpoint's weights: its score would mean nothing.")


def _is(given: str, option: str) -> bool:
    """Whether argparse takes what is given for the option: also the beginning of a long one."""
    return given == option or (len(given) > 2 and given.startswith("--") and option.startswith(given))


def require_loopback(host: str, why: str) -> None:
    """Raise UsageError if other machines can reach an address; ``why`` they could use the server, in a sentence."""
    with suppress(ValueError):  # another name can stand for any address
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise UsageError(
        f"The server cannot listen on {host}, where other machines can reach it. {why}",
        remedy="Leave out --host, and use `ssh -L` to reach the server from another machine.",
    )
