"""``bundle make-checkpoint --like FAMILY``: tiny checkpoints with random weights in the formats of other families.

Model and configuration come from transformers' own classes; the keys of config.json, the marks and the form of the chat
template are those of the family's published checkpoints (``families.toml``). Their replies are those of `Habit`.
"""

import shutil
import tomllib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import TOKENIZER_FILE, list_names, new_directory, read_json_object, shown
from bundle.checkpoints.habit import Habit
from bundle.checkpoints.internlm2.make import training_texts
from bundle.checkpoints.tokenizer_probe.files import declared_tokens
from bundle.checkpoints.tokenizer_probe.template import end_of_turn
from bundle.errors import CheckpointError
from bundle.system.files import write_json

_SIZES: Final = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
}
# How Qwen's and Llama 3's tokenizers split text, but for long numbers.
_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_family_checkpoint(
    directory: Path,
    like: str,
    *,
    tokenizer: Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a random-weight checkpoint of a family in ``families.toml``, of some 8 MB.

    The directory, absent or empty before, appears only once it is complete. ``tokenizer`` is a directory with a
    tokenizer.json and a tokenizer_config.json to take; without one a small one is trained. Raises CheckpointError if
    the checkpoint cannot be written, the tokenizer does not fit, or transformers does not know the family.
    """
    family = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))[like]
    if tokenizer is not None:
        settings = read_json_object(tokenizer / "tokenizer_config.json")
        read_json_object(tokenizer / "tokenizer.json")
        say(f"taking the tokenizer of {shown(tokenizer)}")
    with new_directory(directory, 2**26 if tokenizer is None else 2**29) as partial:
        if tokenizer is None:
            say("training a tokenizer")
            _train_tokenizer(partial, family)
        else:
            for name in list_names(tokenizer):
                if TOKENIZER_FILE.fullmatch(name) and not name.endswith(".py"):
                    shutil.copyfile(tokenizer / name, partial / name)
            if not settings.get("chat_template") and not (partial / "chat_template.jinja").is_file():
                write_json(partial / "tokenizer_config.json", {**settings, "chat_template": family["template"]})
        _write_model(partial, family, tokenizer or directory, seed, say)


def _train_tokenizer(directory: Path, family: dict[str, Any]) -> None:
    """A byte-level BPE, as these families have."""
    # imported late: `bundle --help` needs none of it
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(training_texts(), trainer)
    special = list(dict.fromkeys([*family["special"].values(), *family["ends"], *family.get("marks", ())]))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in family.get("plain", ())])
    if (bos := family["special"].get("bos_token")) is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    tokenizer.save(str(directory / "tokenizer.json"))
    added = read_json_object(directory / "tokenizer.json")["added_tokens"]
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": bos is not None,
            "added_tokens_decoder": {str(token.pop("id")): token for token in added},
            "bos_token": None,
            **family["special"],
            "chat_template": family["template"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": family["config"]["max_position_embeddings"],
            "tokenizer_class": family.get("tokenizer_class", "PreTrainedTokenizerFast"),
        },
    )


def _write_model(directory: Path, family: dict[str, Any], source: Path, seed: int, say: Callable[[str], None]) -> None:
    import torch  # imported late, like transformers: seconds
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        end = end_of_turn(tokenizer, declared_tokens(directory))
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "1+1=?"}], tokenize=False, add_generation_prompt=True, enable_thinking=on
            )
            for on in (True, False)
        ]
    except Exception as error:  # whatever transformers raises over the files of another's tokenizer
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot use the tokenizer in {shown(source)}: "
            f"{shown(error, 400)}.",
            remedy="Name the directory of a chat model that it loads.",
        ) from error
    last = {tokenizer.encode(prompt, add_special_tokens=False)[-1] for prompt in prompts}
    vocabulary = tokenizer.get_vocab()
    if end is None or not set("ABCD") <= vocabulary.keys():
        raise CheckpointError(
            f"The tokenizer in {shown(source)} has no token for {'A, B, C and D' if end else 'the end of a turn'}.",
            remedy="Name the directory of a chat model of the same family.",
        )
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    ends = {end[1], special["eos_token_id"], *(vocabulary[mark] for mark in family["ends"] if mark in vocabulary)}
    settings = {**_SIZES, **deepcopy(family["config"]), **special}  # a copy: transformers changes it
    settings["vocab_size"] = -(-(max(vocabulary.values()) + 1) // 64) * 64
    try:
        config = transformers.AutoConfig.for_model(family["model_type"], **settings)
    except ValueError as error:
        raise CheckpointError(
            f"transformers {transformers.__version__} does not know {family['model_type']}.",
            remedy="Install a newer one, or make a checkpoint of another family.",
        ) from error
    say("writing model.safetensors")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.get_input_embeddings().weight.normal_()
        habit = Habit([vocabulary[letter] for letter in "ABCD"], end[1], sorted(last))
        for name, weight in model.named_parameters():
            habit.give(name, weight, config.initializer_range * config.hidden_size**0.5)
    model.to(torch.bfloat16).save_pretrained(directory)
    # The keys that publishers' files have, which transformers 5 would call `rope_parameters` and `dtype`.
    saved = read_json_object(directory / "config.json")
    for name in ("rope_parameters", "dtype", "transformers_version"):
        saved.pop(name, None)
    write_json(directory / "config.json", {**saved, **family["config"], "torch_dtype": "bfloat16"})
    write_json(directory / "generation_config.json", {**special, "eos_token_id": sorted(ends)})
