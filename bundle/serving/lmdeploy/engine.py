"""lmdeploy's OpenAI-compatible server, 0.12 to 0.18."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from bundle.checkpoints import eos_without_token, language_configs
from bundle.errors import CheckpointError, ServerError
from bundle.serving.arguments import Arguments
from bundle.serving.conversion import INTERNLM2, Servable, servable_without_code
from bundle.serving.engine import Engine, ServerSpec, no_weights, require_loopback
from bundle.serving.gpu_choice import reserve_gpus
from bundle.serving.gpus import Gpu, gib, needed_mib, select_gpus, visible_gpus
from bundle.serving.known_failures import Signs
from bundle.serving.lmdeploy import support
from bundle.serving.lmdeploy.launcher import KEY_VARIABLE
from bundle.serving.lmdeploy.log import SIGNS
from bundle.serving.machine import Machine
from bundle.system.findings import Check, Finding, failing, ok
from bundle.system.text import printable

_OLDEST, _NEWEST = (0, 12), (0, 18)
_TRUST_REMOTE_CODE_SINCE = (0, 13)  # before, lmdeploy ran a checkpoint's code without asking
_KEY_FOR_ALL_SINCE = (0, 13)  # before, /abort_request and /distserve/… were open to everyone
_GENERATION_CONFIG_SINCE = (0, 15)  # before, a checkpoint's generation_config.json was not read for sampling
_CAPTURE_SIZES_SINCE = (0, 14)  # before, the PyTorch engine captured a CUDA graph for every power of two

_OURS = {
    *("--server-name", "--server-port", "--model-name", "--api-keys", "--ssl", "--proxy-url"),
    "--adapters",  # of which none is asked unless a request names it
}

_OTHER_POSITIONS: Final = "does not scale the model's positions as its config.json says"
_LENGTH: Final = "--session-len"
_BFLOAT16_SINCE: Final = (8, 0)
"""The compute capability from which on GPUs have it."""

_SLOTS = 256
"""Requests computed at once. lmdeploy takes 1,024 on an H100: space and CUDA graphs that one run has no use for."""
_SMALL_BATCH = 32
"""A second size to capture CUDA graphs for: enough for a run's last replies. Padding a small model's batch up to a
captured size costs next to nothing, and every size captured costs part of a second before the server is ready."""
_LONGEST_SILENCE_S = 180.0
"""The longest reply, 2,048 tokens of a large model, takes about a minute."""

_CHAT_TEMPLATE = "chat_template.json"


class LmdeployEngine(Engine):
    """Serves a checkpoint with lmdeploy on NVIDIA GPUs."""

    name: ClassVar[str] = "lmdeploy"
    signs: ClassVar[Signs] = SIGNS

    @property
    def architectures(self) -> frozenset[str] | None:
        """What the installed lmdeploy knows; None if its source cannot be read."""
        package = self._installed.package
        return support.architectures(package) if package else None

    @property
    def refused_quantization(self) -> str | None:
        checkpoint, package = self.job.checkpoint, self._installed.package
        settings = checkpoint.quantization_config
        if settings is None or package is None:
            return None
        return support.refused_quantization(package, settings, checkpoint.architecture, self._chosen_backend)

    @property
    def slots(self) -> int:
        """How many requests the server computes at once."""
        return self._arguments.number("--max-batch-size") or _SLOTS

    @property
    def context_options(self) -> Mapping[str, int | None]:
        return {_LENGTH: self._length}

    @property
    def gpu_count(self) -> int:
        return max(self._arguments.number("--tp") or 1, 1)

    @property
    def scores_texts(self) -> bool:
        package = self._installed.package
        return package is not None and support.scores_texts(package) and self._chosen_backend != "turbomind"

    @staticmethod
    def checks(machine: Machine) -> tuple[Check, ...]:
        from bundle.serving.lmdeploy.checks import lmdeploy_checks  # only ``bundle doctor`` needs it

        return lmdeploy_checks(machine)

    def forecast(self) -> tuple[list[Finding], str | None]:
        [gpu] = select_gpus(visible_gpus(self.job.machine.gpus), None, 1)
        needed = needed_mib(self.job.checkpoint.weights.size)
        text = f"it needs about {gib(needed)} of GPU memory; GPU {gpu}"
        remedy = "Stop what uses the memory, or spread the weights over several GPUs with `-- --tp 2`."
        enough = gpu.free_mib is None or gpu.free_mib >= needed
        memory = ok(text) if enough else failing(text, remedy)
        checkpoint = self.job.checkpoint
        if checkpoint.architecture == INTERNLM2 and checkpoint.remote_code and not self.job.trust_remote_code:
            return [memory, ok("none of its Python code runs: its tokenizer is converted, and checked then")], None
        return [memory], self._installed.interpreter

    def prepare(self, say: Callable[[str], None], *, plain: bool = False, scores: bool = False) -> ServerSpec:
        job, installed = self.job, self._installed
        self._require_possible(say, scores=scores)
        gpus, gpu_locks = reserve_gpus(job, self.name, self.gpu_count, say)
        found = servable_without_code(job.checkpoint, trust_remote_code=job.trust_remote_code, say=say)
        if (eos := eos_without_token(found.directory)) is not None:  # it makes a token of that, which must be one
            raise CheckpointError(
                f"lmdeploy needs an eos_token in {printable(str(found.directory))}/tokenizer_config.json, since "
                f"eos_token_id in generation_config.json is {eos}.",
                remedy='Add "eos_token" there, the text of the token that ends a reply, or use another --engine.',
            )
        served_name = printable(job.checkpoint.name) or "model"
        say(f"lmdeploy {installed.version} on GPU {', '.join(map(str, gpus))}")
        self._tell_of_the_window(say)
        backend, dtype = self._backend(gpus, say, scores=scores), self._dtype(gpus, say)
        options: tuple[str, ...] = () if backend is None else ("--backend", backend)
        if dtype is not None and not self._arguments.has("--dtype"):
            options += ("--dtype", dtype)
        if scores:
            options += ("--logprobs-mode", "raw_logprobs")
        return ServerSpec(
            engine=self.name,
            version=installed.version,
            served_name=served_name,
            interpreter=installed.interpreter,
            model=found,
            command=partial(self._command, served_name, found, options),
            environment={
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                "UVICORN_LOG_LEVEL": "warning",
                "UVICORN_TIMEOUT_KEEP_ALIVE": "600",  # the default 5 s closes connections under our requests
                **job.settings.env,
            },
            key_variable=KEY_VARIABLE,
            # lmdeploy chooses a template by words in the path: one in a folder "llama2-study" would get Llama 2's.
            files={
                _CHAT_TEMPLATE: json.dumps(
                    {"model_name": "base" if plain else "hf", "model_path": str(found.directory)}
                )
            },
            host=job.host,
            gpus=gpus,
            gpu_locks=gpu_locks,
            concurrency=job.concurrency(self.slots),
            longest_silence_s=_LONGEST_SILENCE_S,
            signs=self.signs,
            dtype=dtype,
            backend=backend,
            # TurboMind takes temperature 0 for a scale: among equal logits it would draw by lot.
            greedy={"top_k": 1},
            stop_field="stop",  # each text must be one token, and ends a reply by its id
            chosen_template="--chat-template" if self._arguments.has("--chat-template") else None,
            plain=plain,
            scoring="generate",
        )

    def _require_possible(self, say: Callable[[str], None], *, scores: bool) -> None:
        """Raise BundleError where this lmdeploy cannot serve the checkpoint, or not with these options."""
        installed, arguments = self._installed, self._arguments
        if installed.release < _OLDEST:
            raise ServerError(
                f"lmdeploy {installed.version} is too old: 0.12 to 0.18 are supported.",
                remedy="Upgrade it with `pip install '.[gpu]'` in a checkout of this project.",
            )
        if installed.release > _NEWEST:
            say(f"lmdeploy {installed.version} is newer than the versions tested (0.12 to 0.18)")
        arguments.refuse({*_OURS, "--logprobs-mode"} if scores else _OURS, "lmdeploy")
        if arguments.has("--empty-init"):
            raise no_weights("--empty-init")
        if installed.release < _KEY_FOR_ALL_SINCE:
            require_loopback(self.job.host, f"lmdeploy {installed.version} answers some requests without its API key.")
        self._require_its_model()

    def _require_its_model(self) -> None:
        """Check that lmdeploy computes what config.json says where most of its models do not ask.

        Raises CheckpointError if it computes another model.
        """
        checkpoint, package = self.job.checkpoint, self._installed.package
        if package is None:
            return
        architecture, other = printable(checkpoint.architecture), None
        wanted, computed = checkpoint.config.get("hidden_act"), support.activation(package, checkpoint.architecture)
        if computed is not None and wanted not in (None, "swish", computed):
            other = f"computes {architecture} with {computed}, although hidden_act", repr(wanted)
        untied = any(one.get("tie_word_embeddings") is False for one in language_configs(checkpoint.config))
        if untied and support.ties_always(package, checkpoint.architecture):
            other = f"takes the embeddings of {architecture} for its lm_head, although tie_word_embeddings", "false"
        if self._chosen_backend == "turbomind" and support.has_other_positions_in_turbomind(checkpoint.config):
            raise CheckpointError(
                f"lmdeploy's TurboMind {_OTHER_POSITIONS}: {printable(str(checkpoint.path))}.",
                remedy="Its replies would be another model's. Use `-- --backend pytorch`.",
            )
        if other is not None:
            raise CheckpointError(
                f"lmdeploy {other[0]} in {printable(str(checkpoint.path))}/config.json is {other[1]}.",
                remedy="Its replies would be another model's. Use --engine transformers.",
            )

    @property
    def _window(self) -> int | None:
        """The model's sliding window in tokens; None if it has none, or no text is longer."""
        checkpoint = self.job.checkpoint
        window, positions = support.sliding_window(checkpoint.config), checkpoint.max_position_embeddings
        return window if window is not None and (positions is None or window < positions) else None

    @property
    def _length(self) -> int | None:
        """The server's context length in tokens; None where lmdeploy takes it from config.json.

        It ends at the window where lmdeploy would not compute longer texts as the model does.
        """
        given, window = self._arguments.number(_LENGTH), self._window
        return given if window is None or self._windows_are_its_own else min(window, given or window)

    @property
    def _windows_are_its_own(self) -> bool:
        return self.job.checkpoint.architecture in support.WINDOW_BY_LAYER

    def _tell_of_the_window(self, say: Callable[[str], None]) -> None:
        window, given = self._window, self._arguments.number(_LENGTH)
        if window is None or (given is not None and given <= window):
            return
        other = "--engine transformers does"
        if self._windows_are_its_own:
            say(f"its PyTorch engine sees one token more than the model's sliding window of {window:,}; {other} not")
        else:
            say(
                f"prompt and reply end at the model's sliding window of {window:,} tokens: lmdeploy does not compute "
                f"what lies beyond it as the model does; {other}"
            )

    def _backend(self, gpus: Sequence[Gpu], say: Callable[[str], None], *, scores: bool) -> str | None:
        """Its PyTorch engine, where TurboMind cannot serve the model; None where lmdeploy or the user chooses."""
        config = self.job.checkpoint.config
        if self._arguments.has("--backend"):
            return None
        lacks = support.without_turbomind(gpus, self.job.machine.nvidia.capabilities, self._installed.release)
        reasons = {
            f"has no code for {lacks}": lacks is not None,
            "does not say how likely a text is": scores,
            _OTHER_POSITIONS: support.has_other_positions_in_turbomind(config),
        }
        why = next((reason for reason, holds in reasons.items() if holds), None)
        if why is None:
            return None
        say(f"its TurboMind {why}: using its PyTorch engine (--backend pytorch)")
        return "pytorch"

    def _dtype(self, gpus: Sequence[Gpu], say: Callable[[str], None]) -> str | None:
        """The data type it is made to compute in; None where config.json or quantized weights decide.

        Without a 16-bit dtype there, TurboMind would take bfloat16, and its PyTorch engine float16, which has not the
        range of weights that were trained in another. On a GPU without bfloat16 both take float16 for it.
        """
        checkpoint = self.job.checkpoint
        if (given := self._arguments.value("--dtype")) not in (None, "auto"):
            return given
        configs = language_configs(checkpoint.config)
        stated = next((one[key] for one in configs for key in ("dtype", "torch_dtype") if one.get(key)), None)
        capabilities = [self.job.machine.nvidia.capabilities.get(gpu.uuid, _BFLOAT16_SINCE) for gpu in gpus]
        only_half = any(capability < _BFLOAT16_SINCE for capability in capabilities)
        decided = {"float16", "half"} if only_half else {"float16", "half", "bfloat16"}
        if given or checkpoint.quantization is not None or stated in decided:
            return None
        stored = {tensor.dtype for tensor in checkpoint.weights.tensors.values() if len(tensor.shape) > 1}
        dtype = "float16" if only_half or stored == {"F16"} else "bfloat16"
        lacks = ", and the GPU has no bfloat16" if only_half and stated == "bfloat16" else ""
        say(f"computing in {dtype}: config.json says {stated or 'no dtype'}{lacks} (choose with `-- --dtype`)")
        return dtype

    def _command(
        self, served_name: str, found: Servable, options: tuple[str, ...], port: int, directory: Path
    ) -> tuple[str, ...]:
        job, installed, given = self.job, self._installed, self._arguments
        version = installed.release
        arguments = ["serve", "api_server", str(found.directory)]
        arguments += ["--server-name", job.host, "--server-port", str(port)]
        arguments.append(f"--model-name={served_name}")  # which may begin with a hyphen
        arguments += ["--enable-prefix-caching", "--enable-abort-handling", "--log-level", "WARNING", *options]
        if found.own_code and version >= _TRUST_REMOTE_CODE_SINCE:
            arguments.append("--trust-remote-code")
        if version >= _GENERATION_CONFIG_SINCE:
            # Else the checkpoint's generation_config.json would quietly add, say, a repetition penalty.
            arguments += ["--generation-config", "lmdeploy"]
        if given.number("--max-batch-size") is None:
            arguments += ["--max-batch-size", str(self.slots)]
        if version >= _CAPTURE_SIZES_SINCE:
            sizes = sorted({min(_SMALL_BATCH, self.slots), self.slots})
            arguments += ["--cudagraph-capture-batch-sizes", *map(str, sizes)]
        if (rope := _only_new_rope(job.checkpoint.config)) and not given.has("--hf-overrides"):
            arguments += ["--hf-overrides", json.dumps({"rope_scaling": rope})]
        if not given.has("--chat-template"):
            arguments += ["--chat-template", str(directory / _CHAT_TEMPLATE)]
        arguments += given
        if self._length != given.number(_LENGTH):
            arguments += [_LENGTH, str(self._length)]
        return (installed.interpreter, str(Path(__file__).with_name("launcher.py")), installed.script, *arguments)

    @property
    def _arguments(self) -> Arguments:
        return self.job.engine_arguments

    @property
    def _chosen_backend(self) -> str | None:
        return self._arguments.value("--backend")


def _only_new_rope(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """``rope_parameters`` as transformers 5 writes it, where ``rope_scaling`` does not say the same.

    The PyTorch engine reads the one and looks into the other, which the configuration classes of transformers 4 set to
    None: it does not start.
    """
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping) or config.get("rope_scaling"):
        return None
    return None if any(isinstance(one, Mapping) for one in rope.values()) else rope  # of several kinds of layers
