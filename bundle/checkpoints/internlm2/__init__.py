"""InternLM2 checkpoints: made from nothing for trying things out, and rewritten as Llama where only that is known."""

from bundle.checkpoints.internlm2.architecture import is_internlm2, parameter_count, tensor_table
from bundle.checkpoints.internlm2.llama import rewrite_as_llama
from bundle.checkpoints.internlm2.make import made_config, make_checkpoint

__all__ = ["is_internlm2", "made_config", "make_checkpoint", "parameter_count", "rewrite_as_llama", "tensor_table"]
