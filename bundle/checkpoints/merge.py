"""A LoRA adapter, merged into the model it was trained on, as peft's ``merge_and_unload`` does.

Every engine serves the merged checkpoint, and with the same speed as any other. The base is not loaded: its weight
files are written again, one after the other, with the adapter's product added where it has one.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from bundle.checkpoints._files import TOKENIZER_FILE, further_templates, list_names, require_space, shown
from bundle.checkpoints._lora_config import ADAPTER_CONFIG
from bundle.checkpoints.adapter import Adapter, inspect_adapter
from bundle.checkpoints.cache import ELSEWHERE, cached_directory, content_key, hold
from bundle.checkpoints.inspection import Checkpoint, inspect_checkpoint
from bundle.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# Goes up with every change to what is written.
_VERSION: Final = "merged-lora 3"


def open_merged(
    base_directory: Path, adapter_directory: Path, cache_root: Path | None, *, say: Callable[[str], None]
) -> tuple[Checkpoint, object]:
    """The checkpoint with the adapter merged into it, and what must be kept as long as it is in use.

    Without a ``cache_root`` nothing is merged: it is like the merged one, but for the values of its weights. Raises
    CheckpointError if the adapter does not fit.
    """
    base = inspect_checkpoint(base_directory)
    adapter = inspect_adapter(adapter_directory, base)
    for note in adapter.notes:
        say(note)
    kept: object
    if cache_root is None:
        kept = TemporaryDirectory(prefix="bundle-")
        merged = Path(kept.name)
        link_unmerged(base, adapter, merged)
    else:
        merged = merge_adapter(base, adapter, cache_root, say=say)
        kept = hold(merged)
    return replace(inspect_checkpoint(merged), name=adapter.name), kept


def merge_adapter(
    base: Checkpoint, adapter: Adapter, cache_root: Path, *, say: Callable[[str], None] = lambda line: None
) -> Path:
    """The directory of the base with the adapter merged into it, or the one made earlier.

    It is kept under ``cache_root`` by the content of both, and is shared: read it, change nothing in it. A tokenizer in
    the adapter's directory, which is the one it was trained with, takes the place of the base's. Raises CheckpointError
    if the cache cannot be written, or has too little space.
    """
    beside = _beside_weights(base, adapter)

    def make(target: Path) -> None:
        require_space(target.parent, base.weights.size, "the merged checkpoint", ELSEWHERE)
        say("merging (kept for next time)")
        _write_merged(base, adapter, target, say)
        _put(shutil.copyfile, beside, target)

    say(f"looking for an earlier merge of the adapter {shown(adapter.name)} into {shown(base.name)}")
    if any(file == adapter.path / name for name, file in beside.items()):
        say("tokenizer and chat template are the adapter's")
    key = content_key(_VERSION, [adapter.path / ADAPTER_CONFIG, adapter.weights, *beside.values(), *base.weights.files])
    return cached_directory(cache_root, key, make, source=adapter.path, what="merged checkpoint", say=say)


def link_unmerged(base: Checkpoint, adapter: Adapter, directory: Path) -> None:
    """Fill a directory with links to what the merged checkpoint would hold, but with the base's weights."""
    _put(os.symlink, _beside_weights(base, adapter) | {file.name: file for file in base.weights.files}, directory)


def _put(how: Callable[[Path, Path], object], files: Mapping[str, Path], directory: Path) -> None:
    """Copy or link files to a directory, under these names."""
    for name, file in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        how(file, directory / name)


def _beside_weights(base: Checkpoint, adapter: Adapter) -> dict[str, Path]:
    """The files of a merged checkpoint besides its weights: the base's, and the adapter's tokenizer if it has one."""
    own = [name for name in _names(adapter.path) if TOKENIZER_FILE.fullmatch(name)]
    if {"tokenizer.json", "tokenizer.model", "vocab.json"}.isdisjoint(own):
        own = []
    weights = {file.name for file in base.weights.files}
    suffixes = (".json", ".py", ".model", ".txt", ".jinja", ".tiktoken")
    kept = [
        name
        for name in _names(base.path)
        if name not in weights
        and name.endswith(suffixes)
        and not (own and TOKENIZER_FILE.fullmatch(name))
        and (base.path / name).is_file()
    ]
    return {name: base.path / name for name in kept} | {name: adapter.path / name for name in own}


def _names(directory: Path) -> tuple[str, ...]:
    return (*list_names(directory), *further_templates(directory))


def _write_merged(base: Checkpoint, adapter: Adapter, target: Path, say: Callable[[str], None]) -> None:
    from safetensors.torch import load_file, save_file  # imported late: takes seconds, and only a new merge needs it

    if adapter.weights.suffix == ".bin":
        import torch  # imported late: as above

        parts = torch.load(adapter.weights, "cpu", weights_only=True)
    else:
        parts = load_file(adapter.weights)
    for number, file in enumerate(base.weights.files, start=1):
        say(f"merging, file {number} of {len(base.weights.files)} ({file.stat().st_size / 1e6:,.0f} MB)")
        merged = dict(_merged(load_file(file), adapter, parts))
        save_file(merged, target / file.name, metadata={"format": "pt"})


def _merged(
    tensors: Mapping[str, "torch.Tensor"], adapter: Adapter, parts: Mapping[str, "torch.Tensor"]
) -> Iterator[tuple[str, "torch.Tensor"]]:
    for name, tensor in tensors.items():
        whole = parts[adapter.replaced[name]].to(tensor.dtype).contiguous() if name in adapter.replaced else tensor
        if (product := adapter.products.get(name)) is not None:
            # peft loads factors as float32, whatever they are stored in, and rounds once (embeddings twice, in 0.21).
            added = (parts[product.b].float() @ parts[product.a].float()) * product.scale
            added = added.T.to(tensor.dtype) if product.transposed else added
            merged = (whole.float() + added).to(tensor.dtype)
            if not merged.isfinite().all():
                raise CheckpointError(
                    f"{shown(name)} is not finite any more with the adapter {shown(adapter.path)} merged into it.",
                    remedy="Its factors or its lora_alpha are too large: check the training run.",
                )
            yield name, merged
        else:
            yield name, whole
