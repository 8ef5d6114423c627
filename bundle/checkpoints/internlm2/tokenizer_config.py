"""What the files beside an InternLM2 vocabulary say of its tokenizer: added tokens, special ones, and the template."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundle.checkpoints._files import read_json_object, shown
from bundle.errors import CheckpointError

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
        """A tokenizer_config.json to go with a tokenizer.json; none of the checkpoint's own code is needed.

        ``add_bos_token`` and ``add_eos_token`` are left to the tokenizer.json's post-processor.
        """
        return {
            **self.carried,
            **self.names,
            "additional_special_tokens": list(self.additional),
            "added_tokens_decoder": {str(number): asdict(token) for number, token in sorted(self.added.items())},
            # It would remove spaces before punctuation from what the model wrote.
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }


def read_tokenizer_config(directory: Path) -> TokenizerConfig:
    """Read what ``directory`` says about its tokenizer; a missing file counts as an empty one.

    Raises CheckpointError if a file is unreadable or malformed.
    """
    content: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            content |= read_json_object(directory / name)
    try:
        added = {int(number): _added(token) for number, token in content.get("added_tokens_decoder", {}).items()}
        named = {key: _text(content.get(key, default)) for key, default in _DEFAULT_NAMES.items()}
        additional = [_text(token) for token in content.get("additional_special_tokens") or ()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{shown(directory / 'tokenizer_config.json')}: its special or added tokens are malformed "
            f"({shown(repr(error))}).",
            remedy="Download the file again.",
        ) from error
    return TokenizerConfig(
        added=added,
        names={key: text for key, text in named.items() if text is not None},
        additional=tuple(text for text in additional if text is not None),
        add_bos=bool(content.get("add_bos_token", True)),
        add_eos=bool(content.get("add_eos_token", False)),
        carried={key: content[key] for key in ("chat_template", "model_max_length") if content.get(key) is not None},
    )


def _added(token: Mapping[str, Any]) -> AddedToken:
    special = bool(token.get("special", False))
    flags = {name: bool(token.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    return AddedToken(str(token["content"]), special, normalized=bool(token.get("normalized", not special)), **flags)


def _text(token: object) -> str | None:
    """A special token as text; files write it as a string, as an object, or as null for none."""
    match token:
        case None | str():
            return token
        case {"content": str(content)}:
            return content
        case _:
            raise ValueError(token)
