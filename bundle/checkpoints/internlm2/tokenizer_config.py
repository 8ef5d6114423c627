"""What a checkpoint says about its tokenizer beside the sentencepiece model: added tokens, special tokens, template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import CheckpointError
from bundle.system.text import one_line

# What InternLM2's own tokenizer class assumes where tokenizer_config.json is silent.
_DEFAULT_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before anything else, with the flags of the ``tokenizers`` library."""

    content: str
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """tokenizer_config.json and special_tokens_map.json together.

    Attributes:
        added: The entries of ``added_tokens_decoder``, by id.
        names: ``bos_token``, ``eos_token``, ``unk_token``, ``pad_token``: what each is in text.
        additional: ``additional_special_tokens``.
        add_bos: Whether encoding puts the bos token before the text.
        add_eos: Whether encoding puts the eos token after it.
        carried: Further entries that mean the same to every tokenizer class, such as ``chat_template``.
    """

    added: Mapping[int, AddedToken]
    names: Mapping[str, str]
    additional: tuple[str, ...]
    add_bos: bool
    add_eos: bool
    carried: Mapping[str, Any]

    @property
    def special(self) -> tuple[str, ...]:
        """Every token that has a role of its own, each once."""
        return tuple(dict.fromkeys([*self.names.values(), *self.additional]))

    def as_json(self) -> dict[str, Any]:
        """A tokenizer_config.json to go with a tokenizer.json; no code of the checkpoint's own is needed.

        ``add_bos_token`` and ``add_eos_token`` are left to the tokenizer.json's post-processor.
        """
        return {
            **self.carried,
            **self.names,
            "additional_special_tokens": list(self.additional),
            "added_tokens_decoder": {
                str(number): {
                    "content": token.content,
                    "lstrip": token.lstrip,
                    "normalized": token.normalized,
                    "rstrip": token.rstrip,
                    "single_word": token.single_word,
                    "special": token.special,
                }
                for number, token in sorted(self.added.items())
            },
            # It would remove spaces before punctuation from what the model wrote.
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint.

    Raises:
        CheckpointError: The file is unreadable or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
        json.dumps(content, ensure_ascii=False).encode()  # fails where half a character is escaped
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}).", remedy="Check the disk and the file's rights."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: is not valid JSON ({one_line(str(error))}).", remedy="Download the file again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: must hold a JSON object.", remedy="Download the file again.")
    return content


def read_tokenizer_config(directory: Path) -> TokenizerConfig:
    """Read what ``directory`` says about its tokenizer; a missing file counts as an empty one.

    Raises:
        CheckpointError: A file is unreadable or malformed.
    """
    content: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            content |= read_json(directory / name)
    try:
        added = {int(number): _added(token) for number, token in content.get("added_tokens_decoder", {}).items()}
        names = {
            key: text
            for key, default in _DEFAULT_NAMES.items()
            if (text := _text(content.get(key, default))) is not None
        }
        additional = tuple(
            text for token in content.get("additional_special_tokens") or () if (text := _text(token)) is not None
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: its special or added tokens are malformed ({error!r}).",
            remedy="Download the file again.",
        ) from error
    return TokenizerConfig(
        added=added,
        names=names,
        additional=additional,
        add_bos=bool(content.get("add_bos_token", True)),
        add_eos=bool(content.get("add_eos_token", False)),
        carried={key: content[key] for key in ("chat_template", "model_max_length") if content.get(key) is not None},
    )


def _added(token: Mapping[str, Any]) -> AddedToken:
    special = bool(token.get("special", False))
    return AddedToken(
        content=str(token["content"]),
        special=special,
        single_word=bool(token.get("single_word", False)),
        lstrip=bool(token.get("lstrip", False)),
        rstrip=bool(token.get("rstrip", False)),
        normalized=bool(token.get("normalized", not special)),
    )


def _text(token: object) -> str | None:
    """A special token as text; files write it as a string, as an object, or as null for none."""
    match token:
        case None | str():
            return token
        case {"content": str(content)}:
            return content
        case _:
            raise ValueError(token)
