"""lmdeploy's OpenAI-compatible server, 0.12 to 0.18."""

import importlib.util
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bundle.errors import BundleError, ServerError, UsageError
from bundle.model_files import EngineSettings
from bundle.serving.architectures import lmdeploy_architectures
from bundle.serving.checkpoint import Checkpoint
from bundle.serving.engines import Launch
from bundle.serving.gpus import Gpu, list_gpus, list_processes, select_gpus, visible_gpus
from bundle.serving.lmdeploy_launcher import KEY_VARIABLE
from bundle.serving.python_scripts import find_script, interpreter_of

_OLDEST, _NEWEST = (0, 12), (0, 18)
_TRUST_REMOTE_CODE_SINCE = (0, 13)  # before, lmdeploy ran a checkpoint's code without asking
_GENERATION_CONFIG_SINCE = (0, 15)  # before, a checkpoint's generation_config.json was not read for sampling
_INSTALL = "Install it with `pip install '.[gpu]'` in a checkout of this project."

_DESCRIBE_LMDEPLOY = (
    "import importlib.metadata as m; d = m.distribution('lmdeploy'); print(d.version, 'in', d.locate_file('lmdeploy'))"
)

_OURS = {"--server-name", "--server-port", "--model-name", "--api-keys", "--ssl", "--proxy-url"}
_DEFAULT_CONCURRENCY = 256

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
    """

    checkpoint: Checkpoint
    served_name: str
    settings: EngineSettings
    arguments: Sequence[str] = ()
    trust_remote_code: bool = False
    gpu: str | None = None

    name = "lmdeploy"

    @property
    def concurrency(self) -> int:
        return self.settings.concurrency or _DEFAULT_CONCURRENCY

    @property
    def tokenizer_directory(self) -> Path:
        """The directory the server loads its tokenizer from."""
        return self.checkpoint.path

    @property
    def interpreter(self) -> str:
        """The Python that runs the server."""
        return self._program[0]

    @property
    def version(self) -> str:
        """lmdeploy's version."""
        return self._installed[0]

    @cached_property
    def architectures(self) -> frozenset[str] | None:
        """What the installed lmdeploy knows; None where its source cannot be read."""
        package = self._installed[1]
        return lmdeploy_architectures(package) if package else None

    @cached_property
    def _installed(self) -> tuple[str, Path | None]:
        """lmdeploy's version, and the folder of its package where that can be found."""
        interpreter, script = self._program
        commands = [[interpreter, "-c", _DESCRIBE_LMDEPLOY]]
        if script != "-m":
            commands.append([interpreter, script, "--version"])
        for command in commands:
            try:
                result = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                continue
            found = re.search(r"(\d+\.\d+\S*)(?: in (.*))?", result.stdout)
            if result.returncode == 0 and found:
                return found.group(1), Path(found.group(2)) if found.group(2) else None
        raise ServerError(f"{script} does not tell its version.", remedy=_INSTALL)

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs it is started on, chosen by free memory at the first look.

        Raises:
            BundleError: There is none, or too little free memory on it.
        """
        allowed = visible_gpus(list_gpus())
        if not allowed:
            raise ServerError(
                "lmdeploy needs an NVIDIA GPU, and there is none this program may use.",
                remedy="Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --engine transformers.",
            )
        count = self._tensor_parallel()
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
        names = {argument.partition("=")[0] for argument in self._given}
        if taken := sorted(names & _OURS):
            raise UsageError(
                f"{', '.join(taken)}: these lmdeploy options are set by this program.", remedy="Leave them out."
            )
        indices = ", ".join(f"{gpu.index} ({gpu.name}, {gpu.free_mib / 1024:.1f} GiB free)" for gpu in self.gpus)
        say(f"lmdeploy {self.version} on GPU {indices}")

    def launch(self, host: str, port: int, api_key: str) -> Launch:
        interpreter, script = self._program
        version = _numbers(self.version)
        arguments = ["serve", "api_server", str(self.checkpoint.path)]
        arguments += ["--server-name", host, "--server-port", str(port), "--model-name", self.served_name]
        arguments += ["--enable-prefix-caching", "--enable-abort-handling", "--log-level", "WARNING"]
        if self.trust_remote_code and version >= _TRUST_REMOTE_CODE_SINCE:
            arguments.append("--trust-remote-code")
        if version >= _GENERATION_CONFIG_SINCE:
            # Else the checkpoint's generation_config.json would quietly add, say, a repetition penalty.
            arguments += ["--generation-config", "lmdeploy"]
        launcher = Path(__file__).with_name("lmdeploy_launcher.py")
        return Launch(
            command=(interpreter, str(launcher), script, *arguments, *self._given),
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

    @cached_property
    def _program(self) -> tuple[str, str]:
        """The interpreter, and the script it runs or "-m" for the module."""
        script = find_script("lmdeploy")
        if script is not None:
            interpreter = interpreter_of(script)
            if interpreter is None:
                raise ServerError(
                    f"{script} is not a Python script, so its API key could not be kept off its argument list.",
                    remedy="Put the lmdeploy that pip installed on PATH.",
                )
            return interpreter, str(script)
        if importlib.util.find_spec("lmdeploy") is not None:
            return sys.executable, "-m"
        raise ServerError("lmdeploy is not installed.", remedy=_INSTALL)

    def _tensor_parallel(self) -> int:
        count = 1
        for name, value in itertools.pairwise([*self._given, ""]):
            if name == "--tp" and value.isdigit():
                count = int(value)
            elif name.startswith("--tp=") and name[5:].isdigit():
                count = int(name[5:])
        return max(count, 1)


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
