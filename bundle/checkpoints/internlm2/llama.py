"""The rewrite of an InternLM2 checkpoint as a plain Llama one, for engines that know only Llama.

InternLM2 computes what Llama does; its tensors have other names, and query, key and value projections are fused. Its
tokenizer is Python code that goes wrong without an error under transformers 5, so it is brought over as well.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundle.checkpoints.internlm2.architecture import Architecture, is_internlm2
from bundle.checkpoints.internlm2.cache import cached_directory, content_key
from bundle.checkpoints.internlm2.checkpoint_files import INDEX, setting_files, weight_files
from bundle.checkpoints.internlm2.llama_config import llama_config, llama_generation_config
from bundle.checkpoints.internlm2.llama_weights import read_checkpoint, write_llama_shard
from bundle.checkpoints.internlm2.safetensors_file import Tensor, write_index
from bundle.checkpoints.internlm2.sentencepiece_model import read_model
from bundle.checkpoints.internlm2.tokenizer_config import TokenizerConfig, read_json, read_tokenizer_config
from bundle.checkpoints.internlm2.tokenizer_json import build_tokenizer
from bundle.checkpoints.internlm2.tokenizer_proof import prove_equal
from bundle.errors import CheckpointError, TokenizerError
from bundle.system.text import one_line

# Goes up with every change to what is written, so that no directory of an earlier version is taken for this one's.
_VERSION = "internlm2-as-llama 1"
_END_OF_TURN = "<|im_end|>"


def rewrite_as_llama(source: Path, cache_root: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write ``source`` as a Llama checkpoint that computes the same, or find the one written earlier.

    The directory is kept under ``cache_root`` by the content of the files it is made from (all of them are read each
    time: about a second a GB where they are in memory). Tensors are copied through one after another, in their own
    dtype; the tokenizer becomes a tokenizer.json that is proved against sentencepiece while it is written.

    Args:
        source: An InternLM2 checkpoint directory with safetensors weights.
        cache_root: Where rewritten checkpoints are kept.
        say: Called with a line for each step that takes time, and for anything that could not be brought over.

    Returns:
        The Llama checkpoint's directory. It is shared: read it, change nothing in it.

    Raises:
        CheckpointError: The checkpoint is incomplete or damaged, is no InternLM2, or cannot be rewritten exactly; or
            the cache cannot be written.
        TokenizerError: The tokenizer written does not do what sentencepiece does.
    """
    config = read_json(source / "config.json")
    if not is_internlm2(config):
        raise CheckpointError(
            f"{source}: is no InternLM2 checkpoint (architectures: {one_line(str(config.get('architectures')), 100)}).",
            remedy="Only InternLM2 checkpoints can be rewritten as Llama.",
        )
    shards = weight_files(source)
    try:
        say("looking for an earlier rewrite of this checkpoint")
        key = content_key(_VERSION, [*setting_files(source), *shards])
        return cached_directory(
            cache_root, key, lambda target: _rewrite(source, config, shards, target, say), source=source, say=say
        )
    except OSError as error:
        raise CheckpointError(
            f"{cache_root}: {source.name} could not be rewritten there ({error.strerror}).",
            remedy="Free some space, or put the cache on another disk.",
        ) from error


def _rewrite(
    source: Path, config: Mapping[str, Any], shards: list[Path], target: Path, say: Callable[[str], None]
) -> None:
    llama = llama_config(config)
    architecture = Architecture.from_config(config)
    stored = read_checkpoint(shards, config)
    needed, free = sum(path.stat().st_size for path in shards), shutil.disk_usage(target).free
    if free < needed:
        raise CheckpointError(
            f"{target.parent} has {free / 1e9:.1f} GB free; the rewritten checkpoint needs {needed / 1e9:.1f} GB.",
            remedy="Free some space, or put the cache on another disk.",
        )
    say("bringing the tokenizer over")
    end_of_turn = _write_tokenizer(source, target, architecture.vocab_size, say)
    written: dict[str, list[Tensor]] = {}
    for n, (path, tensors) in enumerate(stored.items(), start=1):
        say(f"rewriting weights as Llama's, file {n} of {len(stored)} ({path.stat().st_size / 1e6:,.0f} MB)")
        written[path.name] = write_llama_shard(target / path.name, tensors, architecture)
    if (source / INDEX).is_file():
        write_index(target / INDEX, written)
    own = source / "generation_config.json"
    generation = read_json(own) if own.is_file() else None
    _write_json(target / own.name, llama_generation_config(config, generation, end_of_turn))
    _write_json(target / "config.json", llama)


def _write_tokenizer(source: Path, target: Path, vocab_size: int, say: Callable[[str], None]) -> int | None:
    """Write the tokenizer's files; the id of the mark that ends a turn, where there is one."""
    from tokenizers import Tokenizer

    config = read_tokenizer_config(source)
    model_file = source / "tokenizer.model"
    if model_file.is_file():
        model = read_model(model_file)
        tokenizer, config, merges = build_tokenizer(model, config)
        prove_equal(tokenizer, model_file, model, config.added, merges.inexpressible)
        if merges.inexpressible:
            say(_not_brought_over(merges.inexpressible))
    elif (source / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(
                f"{source / 'tokenizer.json'}: cannot be loaded ({error}).", remedy="Download the file again."
            ) from error
        _check_ids(tokenizer, config)
    else:
        raise CheckpointError(
            f"{source}: has no tokenizer (tokenizer.model or tokenizer.json).", remedy="Download the whole checkpoint."
        )
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    if max(numbers.values()) >= vocab_size:
        text = max(numbers, key=lambda text: numbers[text])
        raise TokenizerError(
            f"{source}: the tokenizer gives {text!r} the id {numbers[text]}; the model has {vocab_size} ids.",
            remedy="Take config.json and the tokenizer's files from the same download of the model.",
        )
    tokenizer.save(str(target / "tokenizer.json"))
    _write_json(target / "tokenizer_config.json", config.as_json())
    if (source / "chat_template.jinja").is_file():
        shutil.copyfile(source / "chat_template.jinja", target / "chat_template.jinja")
    return numbers.get(_END_OF_TURN)


def _check_ids(tokenizer: Any, config: TokenizerConfig) -> None:
    for number, token in config.added.items():
        if tokenizer.token_to_id(token.content) != number:
            raise TokenizerError(
                f"tokenizer.json gives {token.content!r} the id {tokenizer.token_to_id(token.content)}; "
                f"tokenizer_config.json says {number}.",
                remedy="Take both files from the same download of the model.",
            )


def _not_brought_over(texts: tuple[str, ...]) -> str:
    examples = ", ".join(map(repr, texts[:5]))
    return (
        f"note: {len(texts)} pieces of tokenizer.model are made of characters that are no pieces themselves "
        f"({examples}); text with them becomes other tokens than sentencepiece's, of the same meaning"
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
