"""Counting a prompt's tokens with a checkpoint's own vocabulary."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.checkpoints.checkpoint import Checkpoint
from bundle.errors import TokenizerError
from bundle.system.text import one_line
from bundle.tasks.prompts import Message

MARKS_PER_MESSAGE = 8  # begin, role, newlines and end, in any of the usual chat templates


def token_counter(checkpoint: Checkpoint) -> Callable[[Sequence[Message]], int] | None:
    """A function that counts the tokens of a conversation, a little generously; None where that cannot be done here.

    The vocabulary is read directly (tokenizer.json, or a sentencepiece model), without the checkpoint's Python code.

    Raises:
        TokenizerError: The vocabulary's file is damaged.
    """
    try:
        count = _counter({path.name: path for path in checkpoint.tokenizer_files})
    except Exception as error:  # tokenizers raises Exception itself, sentencepiece several kinds
        raise TokenizerError(
            f"The vocabulary of {checkpoint.path} cannot be read, so that prompts cannot be measured against the "
            f"longest one allowed: {one_line(str(error))}",
            remedy="Download the tokenizer's files again, or leave --max-seq-len out.",
        ) from error
    if count is None:
        return None

    def tokens(messages: Sequence[Message]) -> int:
        return sum(count(message["content"]) + MARKS_PER_MESSAGE for message in messages)

    return tokens


def _counter(files: dict[str, Path]) -> Callable[[str], int] | None:
    if "tokenizer.json" in files and importlib.util.find_spec("tokenizers"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    if "tokenizer.model" in files and importlib.util.find_spec("sentencepiece"):
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(files["tokenizer.model"]))
        return lambda text: len(processor.encode(text))
    return None
