"""Which checkpoint it is, and whether it is still the same."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bundle.checkpoints._files import WHOLE_FILE_LIMIT, further_templates, list_names, listed, require_content, shown
from bundle.checkpoints._settings import vocab_size
from bundle.checkpoints._values import read_values
from bundle.checkpoints.inspection import Checkpoint
from bundle.errors import CheckpointError

_BESIDE: Final = ("generation_config.json", "chat_template.jinja", "chat_template.json", "hf_quant_config.json")
"""Further files on which replies depend: they say how a prompt is built, and where a reply ends."""
_WHERE_NOTHING_WRITES: Final = "Evaluate it where nothing writes to it, for instance a copy."
_SAMPLES, _SAMPLE_BYTES, _TENSOR_BYTES, _LAST_ROWS_BYTES = 16, 64 * 1024, 4096, 2**22


def fingerprint(checkpoint: Checkpoint) -> str:
    """A SHA-256 over what replies depend on: settings, tokenizer, template, code, and samples of all weights.

    Of every tensor there is a sample, for some trainings, and merged adapters, change some tensors only; of those with
    a row for each token the last rows too, where tokens are added. A copy of a checkpoint has the fingerprint of the
    original. It does not protect against forgery. Raises CheckpointError if a file cannot be read any more.
    """
    digest = hashlib.sha256()
    try:
        for path in _files_before_weights(checkpoint):
            digest.update(os.fsencode(path.name) + b"\0")
            digest.update(path.read_bytes())
        weights = checkpoint.weights
        for path in weights.files:
            size = path.stat().st_size
            digest.update(os.fsencode(path.name) + f"\0{size}\0".encode())
            with path.open("rb") as stream:
                for number in range(_SAMPLES):
                    stream.seek(max(size - _SAMPLE_BYTES, 0) * number // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE_BYTES))
        tokens = vocab_size(checkpoint.config)
        for name in weights.places:
            digest.update(read_values(weights, name, _TENSOR_BYTES))
            if tokens in weights.tensors[name].shape:
                digest.update(read_values(weights, name, _LAST_ROWS_BYTES, where=1))
    except OSError as error:
        raise _unreadable(checkpoint, error) from None
    return digest.hexdigest()


def _files_before_weights(checkpoint: Checkpoint) -> list[Path]:
    names = [name for name in list_names(checkpoint.path) if name in _BESIDE]
    beside = [checkpoint.path / name for name in (*names, *further_templates(checkpoint.path))]
    require_content(beside, longest=WHOLE_FILE_LIMIT)
    return [checkpoint.path / "config.json", *checkpoint.tokenizer_files, *beside, *checkpoint.remote_code]


def when_written(checkpoint: Checkpoint) -> Mapping[Path, tuple[int, int]]:
    """Size and time of the last change (ns) of every file on which replies depend.

    Raises CheckpointError if a file cannot be read any more.
    """
    files = [*_files_before_weights(checkpoint), *checkpoint.weights.files]
    try:
        return {file: (found.st_size, found.st_mtime_ns) for file in files if (found := file.stat())}
    except OSError as error:
        raise _unreadable(checkpoint, error) from None


def _unreadable(checkpoint: Checkpoint, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{shown(checkpoint.path)} was removed or changed while it was in use: {error}.",
        remedy=_WHERE_NOTHING_WRITES,
    )


def require_unchanged(checkpoint: Checkpoint, before: Mapping[Path, tuple[int, int]]) -> None:
    """Raise CheckpointError if a checkpoint is not as `when_written` has found it before."""
    now = when_written(checkpoint)
    if changed := sorted(file.name for file in now.keys() | before.keys() if now.get(file) != before.get(file)):
        raise CheckpointError(
            f"{shown(checkpoint.path)} has changed since it was inspected: {listed(changed)}.",
            remedy=f"Its replies would not be those of one model. {_WHERE_NOTHING_WRITES}",
        )
