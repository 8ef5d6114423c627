"""``bundle make-checkpoint``: a checkpoint in the format of InternLM2.5's, with random weights.

It is for trying out the whole pipeline and for measuring servers; its answers, single letters, mean nothing.
"""

import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from bundle.checkpoints.internlm2.architecture import (
    ARCHITECTURE,
    MODEL_TYPE,
    Architecture,
    parameter_count,
    tensor_table,
)
from bundle.checkpoints.internlm2.random_weights import Habit, random_tensor
from bundle.checkpoints.internlm2.safetensors_file import Tensor, write_index, write_tensors
from bundle.checkpoints.internlm2.sentencepiece_model import read_model
from bundle.checkpoints.internlm2.tokenizer_config import read_tokenizer_config
from bundle.checkpoints.internlm2.tokenizer_json import build_tokenizer
from bundle.checkpoints.internlm2.tokenizer_proof import prove_equal
from bundle.checkpoints.internlm2.vocabulary import make_vocabulary
from bundle.errors import CheckpointError

Like = Literal["tiny", "internlm2_5-1_8b"]

# Heads are 128 wide in both: TurboMind's InternLM2 reader takes that for granted.
_SIZES: dict[Like, dict[str, int]] = {
    "tiny": {
        "hidden_size": 512,
        "intermediate_size": 768,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 4864,
    },
    "internlm2_5-1_8b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "vocab_size": 92544,
    },
}
_SHARD_BYTES = 2 * 10**9
# The last six ids of the vocabulary, in this order, as in InternLM2.5's.
_MARKS = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def made_config(like: Like) -> dict[str, Any]:
    """The config.json of a made checkpoint: InternLM2.5's own keys, and the sizes of ``like``."""
    return {
        "architectures": [ARCHITECTURE],
        "attn_implementation": "eager",
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "model_type": MODEL_TYPE,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **_SIZES[like],
    }


def make_checkpoint(
    directory: Path, *, like: Like = "tiny", seed: int = 0, say: Callable[[str], None] = lambda line: None
) -> None:
    """Write a random-weight InternLM2 checkpoint; the same ``seed`` gives the same files.

    Args:
        directory: Where to write it; absent, or empty. It appears only once it is complete.
        like: ``tiny`` (18 MB, seconds) or ``internlm2_5-1_8b`` (the real sizes, 3.8 GB).
        seed: What the weights are drawn from.
        say: Called with a line for each step that takes time.

    Raises:
        CheckpointError: The directory is not empty, the disk is too full, or it cannot be written.
    """
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(
            f"{directory} exists and is not an empty directory.", remedy="Name a new one, or remove it first."
        )
    config = made_config(like)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * parameter_count(config) + 32 * 2**20, shutil.disk_usage(directory.parent).free
        if free < needed:
            raise CheckpointError(
                f"{directory.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed.",
                remedy="Free some space, or name a directory on another disk.",
            )
        partial = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.partial")
        try:
            partial.mkdir()
            habit = _write_tokenizer(partial, config["vocab_size"], say)
            _write_weights(partial, config, seed, habit, say)
            _write_json(partial / "generation_config.json", _generation_config(config["vocab_size"]))
            shutil.copyfile(
                str(resources.files("bundle.checkpoints.internlm2") / "files" / "configuration_internlm2.py"),
                partial / "configuration_internlm2.py",
            )
            _write_json(partial / "config.json", config)
            partial.replace(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{directory}: cannot be written ({error.strerror}).",
            remedy="Free some space, or choose another directory.",
        ) from error


def _write_weights(
    directory: Path, config: dict[str, Any], seed: int, habit: Habit, say: Callable[[str], None]
) -> None:
    architecture = Architecture.from_config(config)
    spread = config["initializer_range"]
    shards: list[list[Tensor]] = [[]]
    for name, shape in tensor_table(config).items():
        tensor = Tensor(name, "BF16", shape)
        if sum(other.nbytes for other in shards[-1]) + tensor.nbytes > _SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    count = len(shards)
    names = ["model.safetensors"] if count == 1 else [f"model-{n:05}-of-{count:05}.safetensors" for n in _from_1(count)]
    for name, shard in zip(names, shards, strict=True):
        say(f"writing {name} ({sum(tensor.nbytes for tensor in shard) / 1e6:,.0f} MB)")
        write_tensors(directory / name, shard, lambda t: random_tensor(t, seed, spread, architecture, habit))
    if count > 1:
        write_index(directory / "model.safetensors.index.json", dict(zip(names, shards, strict=True)))


def _from_1(count: int) -> range:
    return range(1, count + 1)


def _write_tokenizer(directory: Path, vocab_size: int, say: Callable[[str], None]) -> Habit:
    """tokenizer.model as the real checkpoint has it, and a tokenizer.json, which every transformers reads alike.

    Returns the ids of the tokens a reply is made of.
    """
    say(f"training a tokenizer of {vocab_size:,} tokens")
    model_file = directory / "tokenizer.model"
    model_file.write_bytes(make_vocabulary(vocab_size))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    special = {**names, "additional_special_tokens": list(reversed(_MARKS))}
    added = {0: "<unk>", 1: "<s>", 2: "</s>", **{vocab_size - len(_MARKS) + n: mark for n, mark in enumerate(_MARKS)}}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    _write_json(directory / "special_tokens_map.json", special)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(number): {"content": text, **flags} for number, text in added.items()},
            **special,
            "chat_template": _CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1000000000000000019884624838656,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    model = read_model(model_file)
    tokenizer, settings, _ = build_tokenizer(model, read_tokenizer_config(directory))
    prove_equal(tokenizer, model_file, model, settings.added)
    tokenizer.save(str(directory / "tokenizer.json"))

    def id_of(text: str) -> int:
        (number,) = tokenizer.encode(text, add_special_tokens=False).ids
        return int(number)

    return Habit(tuple(map(id_of, "ABCD")), _end_of_turn(vocab_size), before_reply=id_of("\n"))


def _generation_config(vocab_size: int) -> dict[str, Any]:
    return {"bos_token_id": 1, "eos_token_id": [2, _end_of_turn(vocab_size)], "pad_token_id": 2}


def _end_of_turn(vocab_size: int) -> int:
    return vocab_size - len(_MARKS) + _MARKS.index("<|im_end|>")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
