"""A look at a model directory before any GPU time is spent on it.

Only small files and headers are read, so it takes well under a second however large the model is.
"""

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from bundle.checkpoints._directory import require_model_directory
from bundle.checkpoints._files import (
    READ_THE_CODE,
    TOKENIZER_FILE,
    WHOLE_FILE_LIMIT,
    list_names,
    listed,
    read_json_object,
    require_content,
    require_whole_json,
    shown,
)
from bundle.checkpoints._implied_tensors import family_of, without_text
from bundle.checkpoints._quantized import read_quantization
from bundle.checkpoints._remote_code import CODE_CONFIGS, find_remote_code
from bundle.checkpoints._safetensors import Weights
from bundle.checkpoints._settings import check_settings, first_number, scalings
from bundle.checkpoints._tensors import check_tensors, tied_tensors
from bundle.checkpoints._values import require_gptq, require_same_values
from bundle.checkpoints._weights import ADAPTER_WEIGHTS, inspect_weights
from bundle.errors import CheckpointError
from bundle.system.files import model_name
from bundle.system.text import nearest

_VOCABULARIES: Final = ("tokenizer.json", "tokenizer.model", "vocab.txt", "spiece.model", "tekken.json")
_TOKENIZER_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a model directory holds.

    Attributes:
        name: The model's name: the directory's, or that of the repository whose snapshot it is.
        architecture: The model class, as in ``InternLM2ForCausalLM``.
        weights: The weights, and where each is.
        weights_unchecked: Why names and shapes of the tensors could not be compared with the configuration; None if
            they were.
        remote_code: The Python files that loading it would run.
        quantization_config: How the weights are quantized, with its ``quant_method``; None if they are not.
        max_position_embeddings: The longest context, in tokens; None if the configuration does not say.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    architecture: str
    weights: Weights
    weights_unchecked: str | None
    tokenizer_files: tuple[Path, ...]
    remote_code: tuple[Path, ...]
    quantization_config: Mapping[str, Any] | None
    max_position_embeddings: int | None

    @property
    def quantization(self) -> str | None:
        """The method the weights are quantized with, such as ``awq``; None if they are not."""
        return None if self.quantization_config is None else shown(self.quantization_config["quant_method"])

    @property
    def scaled_by_ntk(self) -> bool:
        """Whether positions are scaled as ``ntk``, which of the engines only vLLM knows."""
        return family_of(self.config) is not None and any(kind == "ntk" for _, _, kind in scalings(self.config))

    @property
    def remote_code_names(self) -> tuple[str, ...]:
        """The files of ``remote_code`` for display, relative to the directory."""
        return tuple(shown(file.relative_to(self.path)) for file in self.remote_code)

    def is_known_code(self, digests: Collection[str]) -> bool:
        """Whether each file of ``remote_code`` is one of those with these digests (SHA-256, hexadecimal)."""
        return all(hashlib.sha256(file.read_bytes()).hexdigest() in digests for file in self.remote_code)


def inspect_checkpoint(path: Path) -> Checkpoint:
    """Look at a model directory.

    Raises CheckpointError if it is not a checkpoint, is incomplete or damaged, or cannot be served in this form.
    """
    directory = require_model_directory(path)
    names = list_names(directory)
    configs: dict[str, dict[str, Any]] = {
        name: read_json_object(directory / name) for name in CODE_CONFIGS if name in names
    }
    config = configs["config.json"]
    architecture = _architecture(directory, config)
    quantization_config = read_quantization(directory, names, config)
    weights = inspect_weights(directory)
    _require_no_adapter(directory, names)
    unchecked = check_tensors(directory, {**config, "quantization_config": quantization_config}, weights.tensors)
    check_settings(directory, configs, architecture)
    if (tied := tied_tensors(config, weights.tensors)) is not None:
        require_same_values(weights, *tied)
    if quantization_config and quantization_config["quant_method"] == "gptq":
        require_gptq(weights, quantization_config)
    return Checkpoint(
        path=directory,
        name=model_name(directory),
        config=config,
        architecture=architecture,
        weights=weights,
        weights_unchecked=unchecked,
        tokenizer_files=_tokenizer_files(directory, names, configs),
        remote_code=find_remote_code(directory, configs),
        quantization_config=quantization_config,
        max_position_embeddings=first_number(
            config, "max_position_embeddings", "seq_length", "n_positions", "model_max_length", "max_seq_len"
        ),
    )


def require_architecture(checkpoint: Checkpoint, served: Collection[str] | None, engine: str) -> None:
    """Raise CheckpointError if an engine does not serve a checkpoint's architecture.

    ``served`` are the architectures that it serves; None if that cannot be known.
    """
    if served is None or checkpoint.architecture in served:
        return
    remedy = f"It serves {listed(sorted(served), count=8)}. Another --engine, or a newer version of it, may serve it."
    if near := nearest(checkpoint.architecture, sorted(served), count=3):
        remedy = f"It serves {listed(near)}, which have similar names: check architectures in config.json."
    raise CheckpointError(
        f"{engine} does not serve {shown(checkpoint.architecture)}, the architecture of {shown(checkpoint.path)}.",
        remedy=remedy,
    )


def require_trust(checkpoint: Checkpoint, *, trusted: bool) -> None:
    """Check that a checkpoint's own Python code, if it has any, may be run.

    Raises CheckpointError if it has some, and ``trusted`` is false.
    """
    if trusted or not checkpoint.remote_code:
        return
    raise CheckpointError(
        f"Loading {shown(checkpoint.path)} would run Python code from that directory "
        f"({listed(checkpoint.remote_code_names)}), which needs --trust-remote-code.",
        remedy=READ_THE_CODE,
        details=[shown(file) for file in checkpoint.remote_code],
    )


def _require_no_adapter(directory: Path, names: tuple[str, ...]) -> None:
    """Check that no adapter lies beside the model; its configuration alone is left where it was merged."""
    if adapter := [name for name in ADAPTER_WEIGHTS if name in names]:
        where = quote(shown(directory))
        raise CheckpointError(
            f"{shown(directory)} holds a whole model, and a LoRA adapter beside it ({listed(adapter)}).",
            remedy=f"Move the adapter's files to a directory of their own and use `bundle eval-local {where} --adapter "
            "ADAPTER_DIR`; if it is merged into the model already, delete them.",
        )


def _architecture(directory: Path, config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str) and architectures[0]:
        if without_text(architectures[0]):
            raise CheckpointError(
                f"{shown(directory)} generates no text: it is a {shown(architectures[0])}, by architectures in "
                "config.json (a reward model, a classifier, or a model without its output layer).",
                remedy="Give the model it was trained from, or save it with its output layer (AutoModelForCausalLM).",
            )
        return shown(architectures[0])
    # lmdeploy's get_model_arch falls back on this too.
    auto_map = config.get("auto_map")
    reference = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, dict) else None
    if isinstance(reference, str) and "." in reference:
        return shown(reference.rsplit(".", 1)[1])
    raise CheckpointError(
        f"{shown(directory / 'config.json')} does not name an architecture.",
        remedy='It should hold, for example, "architectures": ["InternLM2ForCausalLM"]. '
        "Is it a model's configuration, not a tokenizer's or an adapter's?",
    )


def _copy_from_above(directory: Path) -> str | None:
    """How to copy the tokenizer from the directory above, where trainers put it; None if there is none."""
    with contextlib.suppress(CheckpointError):
        above = [name for name in list_names(directory.parent) if TOKENIZER_FILE.fullmatch(name)]
        if any(name in _VOCABULARIES or name == "merges.txt" for name in above):
            files = " ".join(quote(shown(directory.parent / name)) for name in above)
            return f"Copy it from the directory above: `cp {files} {quote(shown(directory))}`."
    return None


def _tokenizer_files(
    directory: Path, names: tuple[str, ...], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[Path, ...]:
    found = [name for name in names if name in _VOCABULARIES or name.endswith((".tiktoken", ".bpe.model"))]
    if {"vocab.json", "merges.txt"} <= set(names):
        found += ["vocab.json", "merges.txt"]
    code_reads_its_own = any(
        isinstance(auto_map := config.get("auto_map"), dict) and "AutoTokenizer" in auto_map
        for config in configs.values()
    )
    if not found and not code_reads_its_own:
        kinds = "tokenizer.json, tokenizer.model, *.tiktoken, or vocab.json with merges.txt"
        remedy = "Copy the tokenizer's files from the model it was trained from, or download them."
        raise CheckpointError(
            f"{shown(directory)} has no tokenizer ({kinds}).", remedy=_copy_from_above(directory) or remedy
        )
    files = tuple(directory / name for name in (*found, *(name for name in _TOKENIZER_SETTINGS if name in names)))
    require_content(files, longest=WHOLE_FILE_LIMIT)
    for file in files:
        if file.name in _TOKENIZER_SETTINGS:
            if file.name not in configs:
                read_json_object(file)
        elif file.suffix == ".json":
            require_whole_json(file)
    return files
