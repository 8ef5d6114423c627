"""InternLM2 checkpoints: made from nothing for trying things out, and rewritten as Llama where only that is known."""

from bundle.checkpoints.internlm2.make import make_checkpoint
from bundle.checkpoints.internlm2.rewrite import rewrite_as_llama, without_code

__all__ = ["make_checkpoint", "rewrite_as_llama", "without_code"]
