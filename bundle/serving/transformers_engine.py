"""``transformers serve`` on the CPU: slow, and the same road as on a GPU box."""

import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bundle.checkpoints import Checkpoint, transformers_architectures
from bundle.checkpoints.internlm2 import is_internlm2, rewrite_as_llama
from bundle.checkpoints.internlm2.cache import hold
from bundle.config.model_files import EngineSettings
from bundle.errors import ServerError, UsageError
from bundle.serving.engines import Launch
from bundle.serving.exposure import require_loopback

_INSTALL = "Install the CPU engine with `pip install '.[cpu]'` in a checkout of this project"
_OURS = {"--host", "--port", "--device"}
_DEFAULT_CONCURRENCY = 8  # it answers one request after the other; this hides the time between two
_REVISION = "0" * 40

# Folders of the cache.
REWRITTEN, HUB_VIEWS = "llama", "hub-view"


@dataclass
class TransformersEngine:
    """Serves a checkpoint with ``transformers serve`` on the CPU; satisfies ``Engine``.

    It has no API key, so it listens on loopback only, where other users of the machine can ask it too.

    Attributes:
        checkpoint: What is served; an InternLM2 one is rewritten as Llama first.
        served_name: The model's name in requests, "owner/name".
        settings: From the model's file.
        arguments: The user's own, after ``--``.
        trust_remote_code: Leave to run the checkpoint's Python code.
        cache: Where rewritten checkpoints are kept.
    """

    checkpoint: Checkpoint
    served_name: str
    settings: EngineSettings
    arguments: Sequence[str]
    trust_remote_code: bool
    cache: Path

    name = "transformers"
    gpus = ()
    tokenizer_directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer_directory = self.checkpoint.path

    @property
    def concurrency(self) -> int:
        return self.settings.concurrency or _DEFAULT_CONCURRENCY

    @property
    def longest_silence_s(self) -> float:
        """A CPU may take a quarter of an hour for a long reply that is not streamed."""
        return 900.0

    @property
    def interpreter(self) -> str:
        """The Python that runs the server."""
        return sys.executable

    @cached_property
    def version(self) -> str:
        """The version of transformers."""
        try:
            return importlib.metadata.version("transformers")
        except importlib.metadata.PackageNotFoundError:
            raise ServerError(
                "transformers is not installed.",
                remedy=f"{_INSTALL}.",
            ) from None

    @cached_property
    def architectures(self) -> frozenset[str] | None:
        """What transformers knows, and what is rewritten for it; None where the checkpoint brings its own model."""
        auto_map = self.checkpoint.config.get("auto_map")
        if self.trust_remote_code and isinstance(auto_map, dict) and "AutoModelForCausalLM" in auto_map:
            return None
        found = importlib.util.find_spec("transformers")
        known = transformers_architectures(Path(found.origin).parent) if found and found.origin else None
        return known and known | {"InternLM2ForCausalLM"}

    def prepare(self, say: Callable[[str], None]) -> None:
        names = {argument.partition("=")[0] for argument in (*self.settings.args, *self.arguments)}
        if taken := sorted(names & _OURS):
            raise UsageError(
                f"{', '.join(taken)}: these options of transformers serve are set by this program.",
                remedy="Leave them out.",
            )
        major = int(self.version.partition(".")[0])
        if major < 5:
            raise ServerError(
                f"transformers {self.version} is installed, and its server is not usable before 5.23.",
                remedy=f"{_INSTALL}, in an environment of its own.",
            )
        if is_internlm2(self.checkpoint.config):
            say("rewriting the checkpoint as Llama for the CPU engine (kept for the next time)")
            self.tokenizer_directory = rewrite_as_llama(self.checkpoint.path, self.cache / REWRITTEN, say=say)
            weakref.finalize(self, hold(self.tokenizer_directory).release)
        say(f"transformers {self.version} on the CPU")

    def launch(self, host: str, port: int, api_key: str) -> Launch:
        require_loopback(host, "The CPU engine has no API key.")
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", self.served_name]
        command += ["--host", host, "--port", str(port), "--device", "cpu", "--log-level", "error"]
        # Few processors compute bfloat16 faster than they emulate it; float32 holds every bfloat16 weight exactly.
        command += ["--dtype", "float32"]
        if self.trust_remote_code and not is_internlm2(self.checkpoint.config):
            command.append("--trust-remote-code")
        return Launch(
            command=(*command, *self.settings.args, *self.arguments),
            environment={
                "HF_HUB_CACHE": str(_hub_view(self.tokenizer_directory, self.served_name, self.cache)),
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                **self.settings.env,
            },
        )

    def activity(self, line: str) -> str | None:
        if match := re.search(r"Loading (?:weights|checkpoint shards)[^%]*?(\d+)%", line):
            return f"loading weights, {match.group(1)} %"
        return "the HTTP server is up" if "Application startup complete" in line else None


def hub_name(directory: Path) -> str:
    """A name in the hub's form, "local/NAME", for a checkpoint in a directory of any name.

    What the hub allows there is told by ``huggingface_hub.utils.validate_repo_id``.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", directory.name)[:80]
    name = re.sub(r"(?:\.git|[-.])+$|^[-.]+", "", re.sub(r"-{2,}", "-", name))
    return f"local/{name or 'model'}"


def _hub_view(directory: Path, name: str, cache: Path) -> Path:
    """A folder in the layout of the hub's cache that holds ``directory`` as the model ``name``.

    ``transformers serve`` lists the models of that cache and no others, and a model it lists is one it can be seen to
    have loaded under its name.
    """
    files = sorted(file for file in directory.iterdir() if file.is_file())
    key = hashlib.sha256("\0".join([name, *map(str, files)]).encode()).hexdigest()[:16]
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
        try:
            (Path(scratch) / "hub").replace(view)
        except OSError:
            if not view.is_dir():  # another run was quicker
                raise
    return view
