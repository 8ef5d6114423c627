"""How many tokens a prompt has, erring upwards: what fits by this count fits the model."""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bundle.checkpoints._files import shown
from bundle.checkpoints.confined import call_confined
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
        of_texts: Counts those of each of some texts; with a vocabulary in a confined process, which takes part of a
            second however many they are.
        source: What it counts with, in words.
        is_estimate: Whether it knows nothing of the model's vocabulary.
    """

    of_texts: Callable[[Sequence[str]], list[int]]
    source: str
    is_estimate: bool = False

    def __call__(self, messages: Conversation) -> int:
        """Not fewer than the tokens of a conversation."""
        return self.total(self.of_texts([one["content"] for one in messages]))

    @staticmethod
    def total(counts: Sequence[int]) -> int:
        """Not fewer than the tokens of a conversation whose messages have so many."""
        return _MARKS_PER_PROMPT + sum(counts) + _MARKS_PER_MESSAGE * len(counts)

    @staticmethod
    def at_most(messages: Conversation) -> int:
        """What no count exceeds, found quickly: no tokenizer makes more tokens of a text than it has bytes."""
        return _MARKS_PER_PROMPT + sum(
            len(one["content"].encode(errors="replace")) + _MARKS_PER_MESSAGE for one in messages
        )


def token_counter(directory: Path) -> TokenCounter | None:
    """Counts with the vocabulary in a directory; None if it has none that can be read here.

    The vocabulary is read directly (tokenizer.json, or a sentencepiece model), without a checkpoint's Python code.
    Raises TokenizerError if its file cannot be read; counting raises it where the file is damaged.
    """
    for name, package in (("tokenizer.json", "tokenizers"), ("tokenizer.model", "sentencepiece")):
        file = directory / name
        if file.is_file() and importlib.util.find_spec(package) is not None:
            try:
                # Where it lies does not matter: a checkpoint may have been moved when a run of it is resumed.
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise _unreadable(file, error.strerror or str(error)) from error
            return TokenCounter(partial(_count, file), f"{name} (SHA-256 {digest[:16]})")
    return None


def estimating_counter() -> TokenCounter:
    """Counts without a vocabulary, by an estimate that exceeds the count of every vocabulary in use.

    Vocabularies of today take 0.6 to 1.3 tokens for a Chinese character, that of Llama 2 about 1.3, and for English
    some 4 letters a token.
    """
    words = "estimated on the safe side: 2 tokens per Chinese character, 1 per two letters, digit or punctuation mark"
    return TokenCounter(lambda texts: list(map(_estimated, texts)), words, is_estimate=True)


def _estimated(text: str) -> int:
    return sum(1 if piece.isascii() else 2 for piece in _PIECE.findall(text))


def _count(file: Path, texts: Sequence[str]) -> list[int]:
    try:
        counts: list[int] = call_confined(__name__, _encode.__name__, str(file), list(texts))
    except TokenizerError as error:
        raise _unreadable(file, error.message, error.details) from None
    return counts


def _encode(file: str, texts: Sequence[str]) -> list[int]:
    """How many tokens each text is. Called in a confined process."""
    try:
        if file.endswith(".json"):
            from tokenizers import Tokenizer  # imported late: only a confined process needs it

            tokenizer = Tokenizer.from_file(file)
            tokenizer.no_truncation()  # training may have saved both, and servers do neither
            tokenizer.no_padding()
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return [len(encoding.ids) for encoding in encodings]
        import sentencepiece  # imported late: as above

        sentencepiece.set_min_log_level(2)  # it warns of single pieces on stderr
        processor = sentencepiece.SentencePieceProcessor(model_file=file)
        return list(map(len, processor.encode(list(texts))))
    except Exception as error:  # tokenizers raises Exception itself, sentencepiece several kinds
        raise TokenizerError(one_line(str(error))) from error


def _unreadable(file: Path, why: str, details: Sequence[str] = ()) -> TokenizerError:
    return TokenizerError(
        f"Cannot read the vocabulary {shown(file)}, so prompts cannot be measured: {why}",
        remedy="Download the tokenizer's files again.",
        details=details,
    )
