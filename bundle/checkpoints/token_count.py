"""How many tokens a prompt has, erring upwards: what fits by this count fits the model."""

import hashlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle.checkpoints._files import shown
from bundle.checkpoints.tokenizer import Conversation
from bundle.errors import TokenizerError
from bundle.system.text import one_line

_MARKS_PER_MESSAGE: Final = 8
"""Tokens of a message beside its content (begin, role, newlines and end) that no common chat template exceeds."""
_MARKS_PER_PROMPT: Final = 32
"""Tokens that a template puts before and after all messages: its own system message, and the beginning of a reply."""

_PIECE: Final = re.compile(r"[A-Za-z]{1,2}|\n|[^\S\n]+|[^\sA-Za-z]")
"""What is a token or less in the vocabularies in use, but for the characters that take up to two."""


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of a conversation.

    Attributes:
        of_text: Counts those of a text.
        source: What it counts with, in words.
        is_estimate: Whether it knows nothing of the model's vocabulary.
    """

    of_text: Callable[[str], int]
    source: str
    is_estimate: bool = False

    def __call__(self, messages: Conversation) -> int:
        """Not fewer than the tokens of a conversation."""
        return _MARKS_PER_PROMPT + sum(self.of_text(one["content"]) + _MARKS_PER_MESSAGE for one in messages)

    @staticmethod
    def at_most(messages: Conversation) -> int:
        """What no count exceeds, found quickly: no tokenizer makes more tokens of a text than it has bytes."""
        return _MARKS_PER_PROMPT + sum(
            len(one["content"].encode(errors="replace")) + _MARKS_PER_MESSAGE for one in messages
        )


def token_counter(directory: Path) -> TokenCounter | None:
    """Counts with the vocabulary in a directory; None if it has none that can be read here.

    The vocabulary is read directly (tokenizer.json, or a sentencepiece model), without a checkpoint's Python code.

    Raises:
        TokenizerError: The vocabulary's file is damaged.
    """
    readers = (("tokenizer.json", "tokenizers", _fast), ("tokenizer.model", "sentencepiece", _sentencepiece))
    for name, package, reader in readers:
        file = directory / name
        if not file.is_file() or importlib.util.find_spec(package) is None:
            continue
        try:
            # Where it lies does not matter: a checkpoint may have been moved when a run of it is resumed.
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            return TokenCounter(reader(file), f"{name} (SHA-256 {digest[:16]})")
        except Exception as error:  # tokenizers raises Exception itself, sentencepiece several kinds
            raise TokenizerError(
                f"Cannot read the vocabulary {shown(file)}, so prompts cannot be measured: {one_line(str(error))}",
                remedy="Download the tokenizer's files again.",
            ) from error
    return None


def estimating_counter() -> TokenCounter:
    """Counts without a vocabulary, by an estimate that exceeds the count of every vocabulary in use.

    Vocabularies of today take 0.6 to 1.3 tokens for a Chinese character, that of Llama 2 about 1.3, and for English
    some 4 letters a token.
    """
    words = "estimated on the safe side: 2 tokens per Chinese character, 1 per two letters, digit or punctuation mark"
    return TokenCounter(_estimated, words, is_estimate=True)


def _estimated(text: str) -> int:
    return sum(1 if piece.isascii() else 2 for piece in _PIECE.findall(text))


def _fast(file: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer  # imported late: not on the server's start-up road

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _sentencepiece(file: Path) -> Callable[[str], int]:
    import sentencepiece  # imported late: as above

    sentencepiece.set_min_log_level(2)  # it warns of single pieces on stderr
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return lambda text: len(processor.encode(text))
