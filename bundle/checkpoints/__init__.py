"""A model directory: what it holds, whether it is whole, and whether its tokenizer works."""

from bundle.checkpoints._implied_tensors import is_internlm2
from bundle.checkpoints._settings import language_configs
from bundle.checkpoints._values import require_values
from bundle.checkpoints.chat_template import has_chat_template, require_chat_template
from bundle.checkpoints.identity import fingerprint, require_unchanged, when_written
from bundle.checkpoints.inspection import Checkpoint, inspect_checkpoint, require_architecture, require_trust
from bundle.checkpoints.token_count import TokenCounter, estimating_counter, token_counter
from bundle.checkpoints.tokenizer import (
    Conversation,
    RenderedPrompt,
    TokenizerProof,
    eos_without_token,
    prove_tokenizer,
)

__all__ = [
    "Checkpoint",
    "Conversation",
    "RenderedPrompt",
    "TokenCounter",
    "TokenizerProof",
    "eos_without_token",
    "estimating_counter",
    "fingerprint",
    "has_chat_template",
    "inspect_checkpoint",
    "is_internlm2",
    "language_configs",
    "prove_tokenizer",
    "require_architecture",
    "require_chat_template",
    "require_trust",
    "require_unchanged",
    "require_values",
    "token_counter",
    "when_written",
]
