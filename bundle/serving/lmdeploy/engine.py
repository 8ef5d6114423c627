"""lmdeploy's OpenAI-compatible server, 0.12 to 0.18."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bundle.checkpoints import Checkpoint, lmdeploy_architectures
from bundle.config.model_files import EngineSettings
from bundle.errors import BundleError, ServerError, UsageError
from bundle.serving.engines import Launch
from bundle.serving.exposure import require_loopback
from bundle.serving.gpus import Gpu, list_processes, select_gpus, visible_gpus
from bundle.serving.lmdeploy.launcher import KEY_VARIABLE
from bundle.serving.machine import Machine

_OLDEST, _NEWEST = (0, 12), (0, 18)
_TRUST_REMOTE_CODE_SINCE = (0, 13)  # before, lmdeploy ran a checkpoint's code without asking
_KEY_FOR_ALL_SINCE = (0, 13)  # before, /abort_request and /distserve/… were open to everybody
_GENERATION_CONFIG_SINCE = (0, 15)  # before, a checkpoint's generation_config.json was not read for sampling
_CAPTURE_SIZES_SINCE = (0, 14)  # before, the PyTorch engine captured a CUDA graph for every power of two

_OURS = {"--server-name", "--server-port", "--model-name", "--api-keys", "--ssl", "--proxy-url"}

_SLOTS = 256
"""Requests computed at once. lmdeploy takes 1,024 on an H100: space and CUDA graphs that one run has no use for."""
_SMALL_BATCH = 32
"""A second size to capture CUDA graphs for: enough for a run's last replies. Padding a small model's batch up to a
captured size costs next to nothing, and every size captured costs part of a second before the server is ready."""
_WAITING_PER_SLOT = 0.25
"""Requests that wait at the server for a slot, so that one that becomes free is taken without a round trip to us."""

# What a server needs besides its weights: the CUDA context, work space and a cache that holds a few long requests.
_OVERHEAD_MIB = 2048

_ACTIVITIES = (
    (re.compile(r"(?:Loading|loading) (?:weights|checkpoint|safetensors)[^%]*?(\d+)%"), "loading weights, {} %"),
    (re.compile(r"Convert(?:ing)? to turbomind format[^%]*?(\d+)%"), "converting weights, {} %"),
    (re.compile(r"[Cc]aptur\w+ (?:cuda|CUDA) ?[Gg]raph"), "capturing CUDA graphs"),
    (re.compile(r"[Ww]arm(?:ing)? ?up"), "warming up"),
    (re.compile(r"HINT:\s+Please open|Application startup complete"), "the HTTP server is up"),
)


@dataclass(frozen=True)
class LmdeployEngine:
    """Serves a checkpoint with lmdeploy; satisfies ``Engine``.

    Attributes:
        checkpoint: What is served.
        served_name: The model's name in requests.
        settings: From the model's file.
        arguments: The user's own, after ``--``; they win over those of the file.
        trust_remote_code: Leave to run the checkpoint's Python code.
        gpu: As in ``--gpu``, None for the one with the most free memory.
        machine: The GPUs and the lmdeploy there are.
    """

    checkpoint: Checkpoint
    served_name: str
    settings: EngineSettings
    arguments: Sequence[str] = ()
    trust_remote_code: bool = False
    gpu: str | None = None
    machine: Machine = field(default_factory=Machine, compare=False)

    name = "lmdeploy"

    @property
    def concurrency(self) -> int:
        """Requests in flight: one for every slot of the server, and some that wait for one."""
        slots = self._slots
        return self.settings.concurrency or slots + int(slots * _WAITING_PER_SLOT)

    @property
    def longest_silence_s(self) -> float:
        """The longest reply, 2,048 tokens of a large model, takes about a minute."""
        return 180.0

    @property
    def tokenizer_directory(self) -> Path:
        """The directory the server loads its tokenizer from."""
        return self.checkpoint.path

    @property
    def interpreter(self) -> str:
        """The Python that runs the server."""
        return self.machine.lmdeploy.interpreter

    @property
    def version(self) -> str:
        """lmdeploy's version."""
        return self.machine.lmdeploy.version

    @cached_property
    def architectures(self) -> frozenset[str] | None:
        """What the installed lmdeploy knows; None where its source cannot be read."""
        package = self.machine.lmdeploy.package
        return lmdeploy_architectures(package) if package else None

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs it is started on, chosen by free memory at the first look.

        Raises:
            BundleError: There is none, or too little free memory on it.
        """
        allowed = visible_gpus(self.machine.gpus)
        if not allowed:
            raise ServerError(
                "lmdeploy needs an NVIDIA GPU, and there is none this program may use.",
                remedy="Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --engine transformers.",
            )
        count = max(self._number("--tp") or 1, 1)
        chosen = select_gpus(allowed, self.gpu, count)
        needed_mib = self.checkpoint.weight_bytes // (2**20 * len(chosen)) + _OVERHEAD_MIB
        for gpu in chosen:
            if gpu.free_mib < needed_mib:
                raise _too_full(gpu, needed_mib)
        return tuple(chosen)

    def prepare(self, say: Callable[[str], None]) -> None:
        version = _numbers(self.version)
        if version < _OLDEST:
            raise ServerError(
                f"lmdeploy {self.version} is too old: 0.12 to 0.18 can be used.",
                remedy="Upgrade it with `pip install '.[gpu]'` in a checkout of this project.",
            )
        if version > _NEWEST:
            say(f"lmdeploy {self.version} is newer than any this program was tried with (0.12 to 0.18)")
        names = {argument.partition("=")[0] for argument in self._given if argument.startswith("--")}
        # Its parser takes the beginning of an option for the option, so that --api-key would be --api-keys.
        if taken := sorted(name for name in names if any(option.startswith(name) for option in _OURS)):
            raise UsageError(
                f"{', '.join(taken)}: these lmdeploy options are set by this program.", remedy="Leave them out."
            )
        indices = ", ".join(f"{gpu.index} ({gpu.name}, {gpu.free_mib / 1024:.1f} GiB free)" for gpu in self.gpus)
        say(f"lmdeploy {self.version} on GPU {indices}")

    def launch(self, host: str, port: int, api_key: str) -> Launch:
        installed = self.machine.lmdeploy
        version = _numbers(installed.version)
        if version < _KEY_FOR_ALL_SINCE:
            require_loopback(host, f"lmdeploy {installed.version} answers some requests without its API key.")
        arguments = ["serve", "api_server", str(self.checkpoint.path)]
        arguments += ["--server-name", host, "--server-port", str(port), "--model-name", self.served_name]
        arguments += ["--enable-prefix-caching", "--enable-abort-handling", "--log-level", "WARNING"]
        if self.trust_remote_code and version >= _TRUST_REMOTE_CODE_SINCE:
            arguments.append("--trust-remote-code")
        if version >= _GENERATION_CONFIG_SINCE:
            # Else the checkpoint's generation_config.json would quietly add, say, a repetition penalty.
            arguments += ["--generation-config", "lmdeploy"]
        if self._number("--max-batch-size") is None:
            arguments += ["--max-batch-size", str(self._slots)]
        if version >= _CAPTURE_SIZES_SINCE:
            sizes = sorted({min(_SMALL_BATCH, self._slots), self._slots})
            arguments += ["--cudagraph-capture-batch-sizes", *map(str, sizes)]
        launcher = Path(__file__).with_name("launcher.py")
        return Launch(
            command=(installed.interpreter, str(launcher), installed.script, *arguments, *self._given),
            environment={
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                "CUDA_VISIBLE_DEVICES": ",".join(str(gpu.index) for gpu in self.gpus),
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                "UVICORN_LOG_LEVEL": "warning",
                "UVICORN_TIMEOUT_KEEP_ALIVE": "600",  # the default 5 s closes connections under our requests
                **self.settings.env,
            },
            secrets={KEY_VARIABLE: api_key},
        )

    def activity(self, line: str) -> str | None:
        for pattern, words in _ACTIVITIES:
            if match := pattern.search(line):
                return words.format(*match.groups())
        return None

    @property
    def _given(self) -> tuple[str, ...]:
        return (*self.settings.args, *self.arguments)

    @property
    def _slots(self) -> int:
        return self._number("--max-batch-size") or _SLOTS

    def _number(self, option: str) -> int | None:
        """What the model's file or the user gives for an option that takes a number; the last one counts."""
        number = None
        for name, value in itertools.pairwise([*self._given, ""]):
            if name == option and value.isdigit():
                number = int(value)
            elif name.startswith(f"{option}=") and name.partition("=")[2].isdigit():
                number = int(name.partition("=")[2])
        return number


def _numbers(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def _too_full(gpu: Gpu, needed_mib: int) -> BundleError:
    holders = [
        f"  process {process.pid} ({process.name})"
        + (f" holds {process.used_mib / 1024:.1f} GiB" if process.used_mib is not None else "")
        for process in list_processes()
        if process.gpu_uuid == gpu.uuid
    ]
    return ServerError(
        f"GPU {gpu.index} ({gpu.name}) has {gpu.free_mib / 1024:.1f} GiB free of {gpu.total_mib / 1024:.1f}, and "
        f"this checkpoint needs about {needed_mib / 1024:.1f}.",
        remedy="End what holds it, or choose another GPU with --gpu.",
        details=holders or ["  (the driver does not tell who holds it)"],
    )
