"""A look at a model directory before any GPU time is spent on it.

Only small files and headers are read, so it takes well under a second however large the model is.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from bundle.checkpoints._directory import require_model_directory
from bundle.checkpoints._files import (
    WHOLE_FILE_LIMIT,
    list_names,
    listed,
    read_json_object,
    require_content,
    require_whole_json,
    shown,
)
from bundle.checkpoints._remote_code import CODE_CONFIGS, find_remote_code
from bundle.checkpoints._tensors import check_tensors
from bundle.checkpoints._weights import inspect_weights
from bundle.errors import CheckpointError
from bundle.system.files import model_name
from bundle.system.text import nearest

# Where multimodal configurations keep that of their language model.
_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_VOCABULARIES: Final = ("tokenizer.json", "tokenizer.model", "vocab.txt", "spiece.model", "tekken.json")
_TOKENIZER_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_CHAT_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json", "additional_chat_templates", "tekken.json")
_SAMPLES, _SAMPLE_BYTES = 16, 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a model directory holds.

    Attributes:
        architecture: The model class, as in ``InternLM2ForCausalLM``.
        weights_unchecked: Why names and shapes of the tensors could not be compared with the configuration; None if
            they were.
        remote_code: The Python files that loading it would run.
        vocab_size: The number of token ids the model knows; None if the configuration does not say.
        quantization: The method the weights are quantized with, such as ``awq``; None if they are not.
        max_position_embeddings: The longest context, in tokens; None if the configuration does not say.
    """

    path: Path
    config: Mapping[str, Any]
    architecture: str
    weight_files: tuple[Path, ...]
    weight_bytes: int
    weights_unchecked: str | None
    tokenizer_files: tuple[Path, ...]
    remote_code: tuple[Path, ...]
    vocab_size: int | None
    quantization: str | None
    max_position_embeddings: int | None

    @property
    def name(self) -> str:
        """The model's name: the directory's, or that of the repository whose snapshot it is."""
        return model_name(self.path)

    @property
    def remote_code_names(self) -> tuple[str, ...]:
        """The files of ``remote_code`` for display, relative to the directory."""
        return tuple(shown(file.relative_to(self.path)) for file in self.remote_code)

    def is_known_code(self, digests: Collection[str]) -> bool:
        """Whether each file of ``remote_code`` is one of those with these digests (SHA-256, hexadecimal)."""
        return all(hashlib.sha256(file.read_bytes()).hexdigest() in digests for file in self.remote_code)


def inspect_checkpoint(path: Path) -> Checkpoint:
    """Look at a model directory.

    Raises:
        CheckpointError: It is not a checkpoint, is incomplete or damaged, or cannot be served in this form.
    """
    directory = require_model_directory(path)
    names = list_names(directory)
    configs: dict[str, dict[str, Any]] = {
        name: read_json_object(directory / name) for name in CODE_CONFIGS if name in names
    }
    config = configs["config.json"]
    architecture = _architecture(directory, config)
    weights = inspect_weights(directory)
    return Checkpoint(
        path=directory,
        config=config,
        architecture=architecture,
        weight_files=weights.files,
        weight_bytes=weights.size,
        weights_unchecked=check_tensors(directory, config, weights.tensors),
        tokenizer_files=_tokenizer_files(directory, names, configs),
        remote_code=find_remote_code(directory, configs),
        vocab_size=vocab_size(config),
        quantization=_quantization(directory, config),
        max_position_embeddings=_first_number(
            config, "max_position_embeddings", "seq_length", "n_positions", "model_max_length", "max_seq_len"
        ),
    )


def require_architecture(checkpoint: Checkpoint, served: Collection[str] | None, engine: str) -> None:
    """Check that an engine serves a checkpoint's architecture.

    Args:
        served: The architectures the engine serves; None if it cannot be known.

    Raises:
        CheckpointError: It does not.
    """
    if served is None or checkpoint.architecture in served:
        return
    near = nearest(checkpoint.architecture, sorted(served), count=3)
    raise CheckpointError(
        f"{engine} does not serve {shown(checkpoint.architecture)}, the architecture of {shown(checkpoint.path)}.",
        remedy=f"It serves {listed(near, count=3)}, which have similar names: check architectures in config.json."
        if near
        else f"It serves {listed(sorted(served), count=8)}. Another --engine, or a newer version of it, may serve it.",
    )


def require_trust(checkpoint: Checkpoint, *, trusted: bool) -> None:
    """Check that a checkpoint's own Python code, if it has any, may be run.

    Raises:
        CheckpointError: It has some, and ``trusted`` is false.
    """
    if trusted or not checkpoint.remote_code:
        return
    raise CheckpointError(
        f"Loading {shown(checkpoint.path)} would run Python code from that directory "
        f"({listed(checkpoint.remote_code_names)}), which needs --trust-remote-code.",
        remedy="Read the code. If you trust it, add --trust-remote-code, or set trust_remote_code = true in the "
        "model's file in models/.",
        details=[shown(file) for file in checkpoint.remote_code],
    )


def has_chat_template(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint says how a chat becomes a prompt; a base model's does not.

    Raises:
        CheckpointError: ``tokenizer_config.json`` cannot be read.
    """
    directory, names = checkpoint.path, list_names(checkpoint.path)
    config = directory / "tokenizer_config.json"
    if any(name in names for name in _CHAT_TEMPLATES) or (
        config.name in names and read_json_object(config).get("chat_template")
    ):
        return True
    # Some bring their template in Python: an attribute of the tokenizer's class, or a method of it.
    return any(b"chat_template" in file.read_bytes() for file in checkpoint.remote_code)


def require_chat_template(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint can be asked as a chat model.

    Raises:
        CheckpointError: It has no chat template.
    """
    if not has_chat_template(checkpoint):
        raise CheckpointError(
            f"{shown(checkpoint.path)} has no chat template, so it cannot be asked as a chat model.",
            remedy="Ask it as the base model it looks like (--prompt-shape plain), name the chat or instruct model's "
            "directory, or copy chat_template from its tokenizer_config.json.",
        )


def fingerprint(checkpoint: Checkpoint) -> str:
    """A SHA-256 over the configuration, the tokenizer, and samples of every weight file, including both ends.

    Training and quantizing change weights everywhere, so samples are enough to tell two checkpoints apart, and a copy
    of a checkpoint has the fingerprint of the original. It does not protect against forgery.
    """
    digest = hashlib.sha256()
    for path in (checkpoint.path / "config.json", *checkpoint.tokenizer_files):
        digest.update(os.fsencode(path.name) + b"\0")
        digest.update(path.read_bytes())
    for path in checkpoint.weight_files:
        size = path.stat().st_size
        digest.update(os.fsencode(path.name) + f"\0{size}\0".encode())
        with path.open("rb") as stream:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(stream.read())
                continue
            for number in range(_SAMPLES):
                stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


# Importing an engine's package to ask it would take seconds, so its source is searched.
_LMDEPLOY_PYTORCH: Final = re.compile(r"'(\w+)':\s*f'\{LMDEPLOY_PYTORCH_MODEL_PATH\}")
_LMDEPLOY_TURBOMIND: Final = re.compile(r"^\s+(\w+)='", re.MULTILINE)
_TRANSFORMERS: Final = re.compile(r'"(\w+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration))"')


def lmdeploy_architectures(package: Path) -> frozenset[str] | None:
    """What the lmdeploy installed in ``package`` serves with either backend; None if it cannot be told."""
    pytorch = _source(package / "pytorch" / "models" / "module_map.py")
    turbomind = (
        _source(package / "turbomind" / "supported_models.py").partition("SUPPORTED_ARCHS")[2].partition(")\n")[0]
    )
    return frozenset(_LMDEPLOY_PYTORCH.findall(pytorch) + _LMDEPLOY_TURBOMIND.findall(turbomind)) or None


def transformers_architectures(package: Path) -> frozenset[str] | None:
    """What the transformers installed in ``package`` generates text with; None if it cannot be told."""
    return frozenset(_TRANSFORMERS.findall(_source(package / "models" / "auto" / "modeling_auto.py"))) or None


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def vocab_size(config: Mapping[str, Any]) -> int | None:
    """The number of token ids a model knows, from its ``config.json``; None if it does not say."""
    return _first_number(config, "vocab_size", "padded_vocab_size")


def _first_number(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first positive integer under one of the keys, here or in the language model's own configuration."""
    for key in keys:
        value = config.get(key)
        if type(value) is int and value > 0:
            return value
    numbers = (_first_number(nested, *keys) for nested in language_configs(config))
    return next((number for number in numbers if number is not None), None)


def language_configs(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The language model's own configuration within a multimodal one."""
    yield from (nested for name in _TEXT_CONFIGS if isinstance(nested := config.get(name), dict))


def _architecture(directory: Path, config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str) and architectures[0]:
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


def _quantization(directory: Path, config: Mapping[str, Any]) -> str | None:
    settings = config.get("quantization_config")
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if not isinstance(method, str) or not method:
        raise CheckpointError(
            f"{shown(directory / 'config.json')} has a quantization_config without a quant_method.",
            remedy='Add the method the weights are quantized with, such as "quant_method": "awq".',
        )
    return shown(method)


def _copy_from_above(directory: Path) -> str | None:
    """How to copy the tokenizer from the directory above, where trainers put it; None if there is none."""
    known = (*_VOCABULARIES, *_TOKENIZER_SETTINGS, *_CHAT_TEMPLATES, "vocab.json", "merges.txt")
    with contextlib.suppress(CheckpointError):
        above = [name for name in list_names(directory.parent) if name in known or name.startswith("tokenization_")]
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
        raise CheckpointError(
            f"{shown(directory)} has no tokenizer (tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
            "or *.tiktoken).",
            remedy=_copy_from_above(directory)
            or "Copy the tokenizer's files from the model it was trained from, or download them.",
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
