"""An InternLM2 checkpoint as a directory that holds none of its Python code, for engines that know InternLM2.

The published checkpoints come with code for their configuration, their model and their tokenizer, and a server runs it
with the user's rights. An engine with a model of its own needs only the first and the last: so it is given this
program's own configuration class, and the tokenizer as a tokenizer.json that is proved equal to sentencepiece. The
weights are links.
"""

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final

from bundle.checkpoints._files import read_json_object, shown
from bundle.checkpoints._implied_tensors import Sizes
from bundle.checkpoints._weights import inspect_weights
from bundle.checkpoints.cache import cached_directory, content_key
from bundle.checkpoints.internlm2.rewrite import SETTINGS, write_generation_config
from bundle.checkpoints.internlm2.tokenizer import convert_tokenizer
from bundle.errors import CheckpointError
from bundle.system.files import write_json

# Goes up with every change to what is written, so that no directory of an earlier version is taken for this one's.
_VERSION: Final = "internlm2-without-code 1"
CONFIGURATION: Final = "configuration_internlm2.py"
# What InternLM2's own configuration class takes where config.json is silent, and ours does not.
_DEFAULTS: Final = {
    "bias": True,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
}


def without_code(source: Path, cache_root: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """A directory that serves as ``source`` does and holds none of its code; or the one made earlier.

    ``say`` gets each step that takes time, and what could not be converted. Raises CheckpointError if its
    tokenizer needs the code, or the cache cannot be written.
    """
    source = source.resolve()
    config = read_json_object(source / "config.json")
    weights = inspect_weights(source)
    linked = [*weights.files, *(path for path in source.glob("*.index.json") if path.is_file())]

    def make(target: Path) -> None:
        say("converting the tokenizer, so that none of the checkpoint's code has to run (kept for next time)")
        try:
            end_of_turn = convert_tokenizer(source, target, Sizes.from_config(config).vocab, say)
        except CheckpointError as error:
            raise CheckpointError(
                f"{shown(source)} cannot be served without its Python code: {error.message}",
                remedy="Read the code. If you trust it, add --trust-remote-code.",
                details=error.details,
            ) from error
        for path in linked:
            (target / path.name).symlink_to(path)
        write_generation_config(source, target, config, end_of_turn)
        (target / CONFIGURATION).write_bytes(configuration_code())
        auto_map = {"AutoConfig": f"{CONFIGURATION.removesuffix('.py')}.InternLM2Config"}
        write_json(target / "config.json", {**_DEFAULTS, "model_type": "internlm2", **config, "auto_map": auto_map})

    key = content_key(_VERSION, [path for name in SETTINGS if (path := source / name).is_file()])
    # The links lead to this directory and no other.
    where = hashlib.sha256("\0".join([key, *map(str, linked)]).encode()).hexdigest()[:32]
    return cached_directory(cache_root, where, make, source=source, say=say)


def configuration_code() -> bytes:
    """Our own configuration class."""
    return resources.files("bundle.checkpoints.internlm2").joinpath("files", CONFIGURATION).read_bytes()
