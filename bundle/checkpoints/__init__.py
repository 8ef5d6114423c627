"""A model directory: what it holds, whether it is whole, and whether its tokenizer works."""

from bundle.checkpoints.inspection import (
    Checkpoint,
    fingerprint,
    inspect_checkpoint,
    lmdeploy_architectures,
    require_architecture,
    require_chat_template,
    require_trust,
    transformers_architectures,
)
from bundle.checkpoints.tokenizer import (
    MARKS_PER_MESSAGE,
    RenderedPrompt,
    TokenizerProof,
    prove_tokenizer,
    token_counter,
)

__all__ = [
    "MARKS_PER_MESSAGE",
    "Checkpoint",
    "RenderedPrompt",
    "TokenizerProof",
    "fingerprint",
    "inspect_checkpoint",
    "lmdeploy_architectures",
    "prove_tokenizer",
    "require_architecture",
    "require_chat_template",
    "require_trust",
    "token_counter",
    "transformers_architectures",
]
