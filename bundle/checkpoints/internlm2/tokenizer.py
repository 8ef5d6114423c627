"""An InternLM2 tokenizer as files that need none of the checkpoint's code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints._files import listed, read_whole, shown
from bundle.checkpoints.confined import call_confined
from bundle.checkpoints.internlm2.sentencepiece import build_tokenizer, read_model
from bundle.checkpoints.internlm2.tokenizer_config import TokenizerConfig, read_tokenizer_config
from bundle.checkpoints.internlm2.tokenizer_proof import prove_equal
from bundle.errors import CheckpointError, TokenizerError
from bundle.system.files import write_json
from bundle.system.text import one_line

_END_OF_TURN: Final = "<|im_end|>"
_LONGEST_S: Final = 600.0
"""It takes a few seconds, and many times that on a machine that has no processor free."""
ONE_DOWNLOAD: Final = "Take config.json and the other files from the same download of the model."


def convert_tokenizer(source: Path, target: Path, vocab_size: int, say: Callable[[str], None]) -> int | None:
    """Write tokenizer.json and tokenizer_config.json, proved against sentencepiece where that is what they come from.

    What the checkpoint's files say is worked out in a confined process; ``say`` gets what could not be converted.
    Returns the id of the mark that ends a turn, if the template has it. Raises CheckpointError if the files are
    missing, damaged, or cannot be converted exactly; TokenizerError if the converted tokenizer does not do what
    sentencepiece does.
    """
    end_of_turn: int | None
    end_of_turn, note = call_confined(
        __name__, _convert.__name__, str(source), str(target), vocab_size, limit_s=_LONGEST_S
    )
    if note is not None:
        say(note)
    return end_of_turn


def _convert(source_path: str, target_path: str, vocab_size: int) -> tuple[int | None, str | None]:
    from tokenizers import Tokenizer  # imported late: only a confined process needs it

    source, target = Path(source_path), Path(target_path)
    config = read_tokenizer_config(source)
    model_file = source / "tokenizer.model"
    note = None
    if model_file.is_file():
        model = read_model(model_file)
        tokenizer, config = build_tokenizer(model, config)
        prove_equal(tokenizer, model_file, model, config.added)
        if model.inexpressible:
            note = (
                f"note: {len(model.inexpressible)} pieces of tokenizer.model hold characters that are not pieces "
                f"themselves ({listed(map(repr, model.inexpressible))}); text with these is tokenized "
                "differently from sentencepiece, with the same meaning"
            )
    elif (source / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(
                f"{shown(source / 'tokenizer.json')} cannot be loaded: {one_line(str(error))}.",
                remedy="Download the file again.",
            ) from error
        _check_ids(tokenizer, config)
    else:
        raise CheckpointError(
            f"{shown(source)} has no tokenizer (tokenizer.model or tokenizer.json).",
            remedy="Download the whole checkpoint.",
        )
    numbers: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if max(numbers.values()) >= vocab_size:
        text = max(numbers, key=lambda text: numbers[text])
        raise TokenizerError(
            f"{shown(source)}: the tokenizer gives {shown(repr(text))} the id {numbers[text]}; the model has "
            f"{vocab_size} ids.",
            remedy=ONE_DOWNLOAD,
        )
    tokenizer.save(str(target / "tokenizer.json"))
    write_json(target / "tokenizer_config.json", config.as_json())
    template = str(config.carried.get("chat_template"))
    own = source / "chat_template.jinja"
    if own.is_file():
        content = read_whole(own)
        (target / own.name).write_bytes(content)
        template = content.decode("utf-8", "replace")
    return numbers.get(_END_OF_TURN) if _END_OF_TURN in template else None, note


def _check_ids(tokenizer: Any, config: TokenizerConfig) -> None:
    for number, token in config.added.items():
        if tokenizer.token_to_id(token.content) != number:
            raise TokenizerError(
                f"tokenizer.json gives {shown(repr(token.content))} the id {tokenizer.token_to_id(token.content)}; "
                f"tokenizer_config.json says {number}.",
                remedy=ONE_DOWNLOAD,
            )
