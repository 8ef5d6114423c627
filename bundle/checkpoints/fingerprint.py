"""Telling one checkpoint from another without reading all of it."""

import hashlib
import os
from pathlib import Path

from bundle.checkpoints.checkpoint import Checkpoint

_SAMPLES, _SAMPLE_BYTES = 16, 64 * 1024


def fingerprint(checkpoint: Checkpoint) -> str:
    """A SHA-256 over the configuration, the tokenizer, and samples of every weight file, its ends among them.

    Training or quantizing changes weights everywhere, so that samples are enough to tell two checkpoints apart, and a
    copy of a checkpoint has the fingerprint of the original. It is no protection against someone who forges one.
    """
    digest = hashlib.sha256()
    for path in (checkpoint.path / "config.json", *checkpoint.tokenizer_files):
        digest.update(os.fsencode(path.name) + b"\0")
        digest.update(path.read_bytes())
    for path in checkpoint.weight_files:
        digest.update(os.fsencode(path.name) + f"\0{path.stat().st_size}\0".encode())
        _sample(path, digest)
    return digest.hexdigest()


def _sample(path: Path, digest: "hashlib._Hash") -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(stream.read())
            return
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
