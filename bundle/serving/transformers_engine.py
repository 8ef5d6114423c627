"""``transformers serve`` on the CPU: slow, and the same road as on a GPU box."""

import hashlib
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from bundle.checkpoints.tokenizer_probe.files import declared_tokens, read_json
from bundle.errors import EngineMissingError, ServerError, UsageError
from bundle.serving.conversion import INTERNLM2, cache_directory, cpu_dtype, servable
from bundle.serving.engine import Engine, ServerSpec, require_loopback
from bundle.serving.gpus import visible_gpus
from bundle.serving.known_failures import OTHER_WEIGHTS, KnownFailure, Signs, raised
from bundle.serving.machine import Machine
from bundle.system.files import text_if_there, write_json
from bundle.system.findings import Check, Finding, failing, ok

_INSTALL: Final = "Install the CPU engine with `pip install '.[cpu]'` in a checkout of this project"
_OURS: Final = {"--host", "--port", "--device"}
_CONCURRENCY: Final = 8  # it answers one request after the other; this hides the time between two
_LONGEST_SILENCE_S: Final = 900.0
"""A CPU may take a quarter of an hour for a long reply that is not streamed."""
_REVISION: Final = "0" * 40

HUB_VIEWS = "hub-view"
"""Directory of views in the Hub's layout in the cache."""

_ACTIVITIES: Final = (
    (r"Loading (?:weights|checkpoint shards)[^%]*?(\d+)%", "loading weights {} %"),
    ("Application startup complete", "the HTTP server is up"),
)
_ARCHITECTURE: Final = re.compile(r'"(\w+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration))"')
_QUANTIZER: Final = re.compile(r'^ +"([\w-]+)": \w+,$', re.MULTILINE)
_NEEDS: Final = {
    "awq": ("gptqmodel",),
    "gptq": ("optimum", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
}
"""What transformers' quantizers ask for in ``validate_environment``, beside what the cpu extra installs."""

_FAILURES: Final = (
    KnownFailure(
        "it rejects its options: {0}.",
        "`transformers serve --help` shows what may follow `--`.",
        telling=(r"(No such option:? \S+|Invalid value for .*)",),
    ),
    KnownFailure(
        "the packages for serving are not installed.",
        "Install them: `pip install '.[cpu]'`.",
        telling=(raised("ImportError", "Missing dependencies for serving"),),
    ),
    KnownFailure(
        "the checkpoint has no weights for {0}, which it would fill with random numbers.",
        OTHER_WEIGHTS,
        fatal=(r"^((?!.*inv_freq)\S.*?) +\| MISSING\b",),  # RoPE's frequencies follow from config.json
    ),
)


class TransformersEngine(Engine):
    """Serves a checkpoint with ``transformers serve`` on the CPU; an InternLM2 one is converted to Llama first.

    It has no API key, so it listens on loopback only, where other users of the machine can use it, too.
    """

    name: ClassVar[str] = "transformers"
    signs: ClassVar[Signs] = Signs(_ACTIVITIES, _FAILURES)

    @property
    def architectures(self) -> frozenset[str] | None:
        """What transformers knows, and what is converted for it; None if the checkpoint brings its own model."""
        auto_map = self.job.checkpoint.config.get("auto_map")
        if self.job.trust_remote_code and isinstance(auto_map, dict) and "AutoModelForCausalLM" in auto_map:
            return None
        known = frozenset(_ARCHITECTURE.findall(_source("models", "auto", "modeling_auto.py")))
        return known | {INTERNLM2} if known else None

    @property
    def refused_quantization(self) -> str | None:
        settings = self.job.checkpoint.quantization_config
        if settings is None:
            return None
        method: str = settings["quant_method"]
        if self.job.checkpoint.architecture == INTERNLM2:
            return f"InternLM2's weights are converted for it, which quantized ones ({method}) cannot be"
        known = _QUANTIZER.findall(_source("quantizers", "auto.py").partition("AUTO_QUANTIZER_MAPPING = {")[2])
        if known and not any(name in (method, f"{method}_4bit") for name in known):
            return f"transformers does not load weights quantized by {method}"
        missing = [name for name in _NEEDS.get(method, ()) if importlib.util.find_spec(name) is None]
        if missing:
            packages = " ".join(name.replace("_", "-") for name in missing)
            install = f"`{sys.executable} -m pip install {packages}`"
            return f"transformers loads weights quantized by {method} with packages that are missing ({install})"
        return None

    @staticmethod
    def checks(machine: Machine) -> tuple[Check, ...]:
        return (Check("cpu engine", partial(_check_packages, machine), "the disk that Python is on"),)

    def forecast(self) -> tuple[list[Finding], str | None]:
        if self.job.checkpoint.architecture == INTERNLM2:
            return [ok("its tokenizer is converted for the CPU engine, and checked then")], None
        return [], sys.executable

    def prepare(self, say: Callable[[str], None], *, plain: bool = False, scores: bool = False) -> ServerSpec:
        job, version = self.job, _version()
        if job.gpu is not None:
            raise UsageError("--gpu has no effect on the CPU.", remedy="Leave it out, or use --engine lmdeploy.")
        require_loopback(job.host, "The CPU engine has no API key.")
        job.engine_arguments.refuse(_OURS, "transformers serve")
        if int(version.partition(".")[0]) < 5:
            raise ServerError(
                f"transformers {version} is installed, but its server needs 5.23 or newer.",
                remedy=f"{_INSTALL}, in an environment of its own.",
            )
        found = servable(job.checkpoint, trust_remote_code=job.trust_remote_code, say=say)
        dtype = job.engine_arguments.value("--dtype") or cpu_dtype(job.checkpoint.config)
        served_name = hub_name(job.checkpoint.name)
        instead = _only_ids(found.directory) | ({} if plain else _unparsed_replies(found.directory))
        say(f"transformers {version} on the CPU, {dtype}")
        return ServerSpec(
            engine=self.name,
            version=version,
            served_name=served_name,
            interpreter=sys.executable,
            model=found,
            command=partial(self._command, served_name, dtype, found.own_code),
            environment={
                "HF_HUB_CACHE": str(_hub_view(found.directory, served_name, cache_directory(), instead)),
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                **job.settings.env,
            },
            host=job.host,
            concurrency=job.settings.concurrency or _CONCURRENCY,
            longest_silence_s=_LONGEST_SILENCE_S,
            signs=self.signs,
            dtype=dtype,
            ends=frozenset(_ends(found.directory)),
            plain=plain,
        )

    def _command(self, served_name: str, dtype: str, own_code: bool, port: int, directory: Path) -> tuple[str, ...]:
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", served_name]
        command += ["--host", self.job.host, "--port", str(port), "--device", "cpu"]
        command += ["--log-level", "warning"]  # at which it says what weights are missing
        command += ["--dtype", dtype]
        if own_code:
            command.append("--trust-remote-code")
        return (*command, *self.job.engine_arguments)


def _source(*path: str) -> str:
    """A file of the installed transformers, which would take seconds to import; nothing if there is none."""
    found = importlib.util.find_spec("transformers")
    return text_if_there(Path(found.origin).parent.joinpath(*path)) if found and found.origin else ""


def _check_packages(machine: Machine) -> Iterator[Finding]:
    """transformers and what its server requires, in our own environment."""
    from bundle.serving.environments import in_short, problems, required  # only ``bundle doctor`` needs it

    ours = machine.environment(sys.executable)
    wrong = problems(required("cpu"), ours)
    if not wrong:
        yield ok(f"transformers {ours.versions['transformers']}, torch {ours.versions['torch']}")
    elif visible_gpus(machine.gpus):
        state = "incomplete" if "transformers" in ours.versions else "not installed"
        yield ok(f"{state}, and not needed with a GPU")
    else:
        yield failing(f"checkpoints would be served on the CPU, but {in_short(wrong)}", f"{_INSTALL}.")


def hub_name(model: str) -> str:
    """A name in the Hub's form, "local/NAME", for a model of any name.

    What the Hub allows is defined by ``huggingface_hub.utils.validate_repo_id``.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", model)[:80]
    name = re.sub(r"(?:\.git|[-.])+$|^[-.]+", "", re.sub(r"-{2,}", "-", name))
    return f"local/{name or 'model'}"


def _version() -> str:
    import importlib.metadata  # takes 15 ms, which a server on a GPU does not wait for

    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise EngineMissingError("transformers is not installed.", remedy=f"{_INSTALL}.") from None


def _unparsed_replies(directory: Path) -> dict[str, dict[str, Any]]:
    """A tokenizer_config.json with which replies come as they are generated; none if the checkpoint's own will do.

    ``transformers serve`` takes what Qwen's architectures generate apart by Qwen's marks (``get_response_template``).
    What the chat template writes after the last of them becomes a part of the reply: two newlines where Qwen3 is not to
    think, and the whole prompt where a template has none of these marks, as that of DeepSeek-R1's distills.
    """
    config, settings = (read_json(directory, name) for name in ("config.json", "tokenizer_config.json"))
    if not str(config.get("model_type")).startswith(("qwen2", "qwen3")) or "response_template" in settings:
        return {}
    tokens = declared_tokens(directory)
    marks = [str(tokens[end]["content"]) for end in _ends(directory) if end in tokens]
    content = {"content": "text", **({"close": marks} if marks else {})}
    template = {"start_anchor_pattern": r"\Z", "fields": {"content": content}}
    return {"tokenizer_config.json": {**settings, "response_template": template}}


def _only_ids(directory: Path) -> dict[str, dict[str, Any]]:
    """A generation_config.json that does not change what is generated; none if the checkpoint's own will do.

    ``transformers serve`` applies the checkpoint's own to every request, whatever the temperature: Qwen2.5's has a
    repetition penalty. Without one it takes that of config.json. What they say about token ids holds all the same, and
    whatever the checkpoint's files name as an end ends a reply, as on other engines: it asks one of them alone.
    """
    own, config = (read_json(directory, name) for name in ("generation_config.json", "config.json"))
    ids = {
        name: value
        for name, value in (own or config).items()
        if name.endswith("_token_id") and not name.startswith("forced")
    }
    ends = _ends(directory)
    if set(ends) - set(_as_list(ids.get("eos_token_id"))):
        ids["eos_token_id"] = ends
    return {} if ids == own else {"generation_config.json": ids}


def _ends(directory: Path) -> list[int]:
    """The ids that end a reply, by any of a checkpoint's files."""
    listed = [read_json(directory, name).get("eos_token_id") for name in ("generation_config.json", "config.json")]
    eos = read_json(directory, "tokenizer_config.json").get("eos_token")
    text = eos.get("content") if isinstance(eos, dict) else eos
    named = [token for token, entry in declared_tokens(directory).items() if entry.get("content") == text]
    found = [*_as_list(listed[0]), *_as_list(listed[1]), *named]
    return list(dict.fromkeys(token for token in found if isinstance(token, int)))


def _as_list(ids: object) -> list[Any]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _hub_view(directory: Path, name: str, cache: Path, instead: Mapping[str, dict[str, Any]]) -> Path:
    """A directory in the layout of the Hub's cache that holds ``directory`` as the model ``name``.

    What ``instead`` holds takes the place of the files of these names. An ``adapter_config.json`` beside whole weights,
    left where an adapter was merged, is not shown: with peft installed, transformers would load the base it names.

    ``transformers serve`` lists the models of that cache and no others, and a model it lists is one it can be seen to
    have loaded under its name.
    """
    files = sorted(file for file in directory.iterdir() if file.is_file() and file.name != "adapter_config.json")
    key = hashlib.sha256("\0".join([name, *map(str, files), json.dumps(instead)]).encode()).hexdigest()[:16]
    view = cache / HUB_VIEWS / key
    if view.is_dir():
        return view
    view.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=view.parent) as scratch:
        model = Path(scratch) / "hub" / f"models--{name.replace('/', '--')}"
        (model / "snapshots" / _REVISION).mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(_REVISION)
        for file in files:
            (model / "snapshots" / _REVISION / file.name).symlink_to(file)
        for file_name, content in instead.items():
            own = model / "snapshots" / _REVISION / file_name
            own.unlink(missing_ok=True)
            write_json(own, content)
        try:
            (Path(scratch) / "hub").replace(view)
        except OSError:
            if not view.is_dir():  # another run was quicker
                raise
    return view
