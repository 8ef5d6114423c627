"""``bundle make-checkpoint``: a checkpoint in the format of InternLM2.5's, with random weights and one habit.

It is for trying out the whole pipeline and for measuring servers; its answers, single letters, mean nothing.
"""

import io
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from bundle.checkpoints._files import new_directory
from bundle.checkpoints._implied_tensors import INTERNLM2, Sizes, internlm2_tensors, parameter_count
from bundle.checkpoints._weights import SAFETENSORS_INDEX
from bundle.checkpoints.habit import SHARP, Habit
from bundle.checkpoints.internlm2.rewrite import CONFIGURATION, configuration_code
from bundle.checkpoints.internlm2.sentencepiece import PieceType, build_tokenizer, model_message, read_model
from bundle.checkpoints.internlm2.tokenizer import prove_equal
from bundle.checkpoints.internlm2.tokenizer_config import AddedToken, TokenizerConfig
from bundle.system.files import write_json

if TYPE_CHECKING:
    import torch


Like = Literal["tiny", "internlm2_5-1_8b"]

# Heads are 128 wide in both: TurboMind's InternLM2 reader takes that for granted.
_SIZES: Final[dict[Like, dict[str, int]]] = {
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
_SHARD_BYTES = 10**9  # one at a time is held in memory
_MAX_THREADS = 8  # each may hold a whole tensor in float32, 760 MB at most
# The last six ids of the vocabulary, in this order, as in InternLM2.5's.
_MARKS: Final = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
_CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def made_config(like: Like) -> dict[str, Any]:
    """The config.json of a made checkpoint: InternLM2.5's own keys, and the sizes of ``like``."""
    return {
        "architectures": [INTERNLM2],
        "attn_implementation": "eager",
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "model_type": "internlm2",
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

    The directory, absent or empty before, appears only once it is complete. ``like`` is ``tiny`` (18 MB, seconds) or
    ``internlm2_5-1_8b`` (the real sizes, 3.8 GB). Raises CheckpointError if the directory is not empty, the disk is too
    full, or it cannot be written.
    """
    config = made_config(like)
    needed = 2 * parameter_count(internlm2_tensors(config)) + 32 * 2**20
    with new_directory(directory, needed) as partial:
        habit = _write_tokenizer(partial, config["vocab_size"], say)
        _write_weights(partial, config, seed, habit, say)
        ends = {"bos_token_id": 1, "eos_token_id": [2, habit.end_of_turn], "pad_token_id": 2}
        write_json(partial / "generation_config.json", ends)
        (partial / CONFIGURATION).write_bytes(configuration_code())
        write_json(partial / "config.json", config)


def _write_tokenizer(directory: Path, vocab_size: int, say: Callable[[str], None]) -> Habit:
    """tokenizer.model as the real checkpoint has it, and a tokenizer.json, which every transformers reads alike.

    Returns the ids of the tokens a reply is made of.
    """
    say(f"training a tokenizer of {vocab_size:,} tokens")
    model_file = directory / "tokenizer.model"
    model_file.write_bytes(make_vocabulary(vocab_size))
    marks = {mark: vocab_size - len(_MARKS) + n for n, mark in enumerate(_MARKS)}
    added = {"<unk>": 0, "<s>": 1, "</s>": 2, **marks}
    settings = TokenizerConfig(
        added={number: AddedToken(text, special=True) for text, number in added.items()},
        names={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
        additional=tuple(reversed(_MARKS)),
        add_bos=True,
        add_eos=False,
        carried={"chat_template": _CHAT_TEMPLATE, "model_max_length": 1000000000000000019884624838656},
    )
    special = {**settings.names, "additional_special_tokens": list(settings.additional)}
    write_json(directory / "special_tokens_map.json", special)
    published = {"add_bos_token": True, "add_eos_token": False}
    write_json(directory / "tokenizer_config.json", published | settings.as_json())
    model = read_model(model_file)
    tokenizer, _ = build_tokenizer(model, settings)
    prove_equal(tokenizer, model_file, model, settings.added)
    tokenizer.save(str(directory / "tokenizer.json"))

    def id_of(text: str) -> int:
        (number,) = tokenizer.encode(text, add_special_tokens=False).ids
        return int(number)

    return Habit(list(map(id_of, "ABCD")), marks["<|im_end|>"], before_reply=[id_of("\n")])


def _write_weights(
    directory: Path, config: dict[str, Any], seed: int, habit: Habit, say: Callable[[str], None]
) -> None:
    from safetensors.torch import save_file  # imported late: takes seconds

    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in internlm2_tensors(config).items():
        if 2 * parameter_count({**shards[-1], name: shape}) > _SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    count = len(shards)
    weight_map: dict[str, str] = {}
    for n, shard in enumerate(shards, start=1):
        file = "model.safetensors" if count == 1 else f"model-{n:05}-of-{count:05}.safetensors"
        say(f"writing {file} ({2 * parameter_count(shard) / 1e6:,.0f} MB)")
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:  # drawing takes most of the time
            drawn = pool.map(partial(_random_tensor, seed, config, habit), shard, shard.values())
            tensors = dict(zip(shard, drawn, strict=True))
        save_file(tensors, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if count > 1:
        total = 2 * parameter_count(internlm2_tensors(config))
        write_json(directory / SAFETENSORS_INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _random_tensor(
    seed: int, config: dict[str, Any], habit: Habit, name: str, shape: tuple[int, ...]
) -> "torch.Tensor":
    """A bfloat16 tensor: ones for a norm, else normal around 0. It depends on the seed and its name alone."""
    import numpy as np  # imported late, like safetensors
    import torch

    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    values = generator.standard_normal(shape, dtype=np.float32)
    sizes = Sizes.from_config(config)
    if not name.endswith("tok_embeddings.weight"):
        values *= config["initializer_range"]
    habit.give(name, values, config["initializer_range"] * sizes.hidden**0.5)
    if name.endswith("wqkv.weight"):
        values.reshape(sizes.kv_heads, -1, sizes.head_dim, sizes.hidden)[:, :-1] *= SHARP  # a view
    return torch.from_numpy(values).to(torch.bfloat16)


_TRAINED_PIECES: Final = 4608
_PUNCTUATION: Final = (
    "，。、；：？！“”‘’（）《》〈〉【】〔〕［］｛｝—…·～￥％＋－×÷＝≠≤≥±°℃αβγδεθλμπρσφωΔΣΩ∞√∫∑∈∪∩→①②③④"
)
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))


def make_vocabulary(size: int) -> bytes:
    """A sentencepiece BPE model file with ``size`` pieces, at least those that are trained.

    It has what InternLM2's has: byte fallback, no dummy prefix, text taken as it is, ``<unk>``, ``<s>`` and ``</s>``
    at 0, 1 and 2, and pieces called ``[UNUSED_TOKEN_n]`` at the end, which no text becomes. All printable ASCII and
    the 3,755 most common Chinese characters are pieces. It is trained on original sentences in the shapes of
    evaluation prompts, so that a prompt has about as many tokens as characters, and often fewer.
    """
    import sentencepiece  # imported late: a tenth of a second

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_texts()),
        model_writer=trained,
        model_type="bpe",
        vocab_size=_TRAINED_PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    spare = model_message()()
    for n in range(size - _TRAINED_PIECES):
        spare.pieces.add(piece=f"[UNUSED_TOKEN_{n}]", score=-_TRAINED_PIECES - n, type=PieceType.NORMAL)
    # A message followed by another is their union, repeated fields being joined.
    return trained.getvalue() + bytes(spare.SerializeToString())


def training_texts() -> list[str]:
    """Original sentences in the shapes of evaluation prompts, then each character that must be a token by itself.

    The characters are texts of their own: sentencepiece before 0.2.3 ends the process over `required_chars`, and so
    they change no pair of pieces.
    """
    sentences = resources.files("bundle.checkpoints.internlm2").joinpath("files", "sentences.txt")
    return [*sentences.read_text(encoding="utf-8").splitlines(), *_PUNCTUATION, *_ASCII, *_common_characters()]


def _common_characters() -> str:
    """GB 2312's first level: the characters for everyday use, rows 16 to 55 of its table."""
    return bytes(
        byte for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF if row < 0xD7 else 0xFA) for byte in (row, cell)
    ).decode("gb2312")
