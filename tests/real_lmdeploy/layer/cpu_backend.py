"""A backend for lmdeploy's PyTorch engine: its own plain-torch operators, and a paged attention in plain torch."""

import itertools
import types
from typing import Any

import faults


def patch(selector: Any) -> None:
    """Make ``lmdeploy.pytorch.backends.selector``, which has just been imported, choose this backend."""
    import torch
    from lmdeploy.pytorch.backends import attention
    from lmdeploy.pytorch.backends.attention import AttentionImpl
    from lmdeploy.pytorch.backends.default.op_backend import DefaultOpsBackend

    class PagedAttention(AttentionImpl):  # type: ignore[misc]
        """Writes keys and values into their blocks and attends, one sequence after the other."""

        first: Any = None
        """That of the first layer, which counts the prompts."""

        def forward(
            self,
            query: Any,
            key: Any,
            value: Any,
            k_cache: Any,
            v_cache: Any,
            attn_metadata: Any,
            *_: Any,
            **__: Any,
        ) -> Any:
            starts = attn_metadata.cu_seqlens_q.tolist()
            PagedAttention.first = PagedAttention.first or self
            if self is PagedAttention.first:
                prompts = sum(end - start > 1 for start, end in itertools.pairwise(starts))
                if (fault := faults.take(prompts)) is not None:
                    faults.happen(fault, torch)
            output = torch.empty((*query.shape[:-1], self.v_head_size), dtype=query.dtype)
            for number, length in enumerate(attn_metadata.kv_seqlens.tolist()):
                mine = slice(starts[number], starts[number + 1])
                if mine.start == mine.stop:
                    continue
                blocks = attn_metadata.block_offsets[number].long()
                positions = torch.arange(length - (mine.stop - mine.start), length)
                if key is not None:
                    size = k_cache.size(1)
                    block, within = blocks[positions // size], positions % size
                    k_cache[block, within] = key[mine].to(k_cache.dtype)
                    v_cache[block, within] = value[mine].to(v_cache.dtype)
                output[mine] = self._attend(query[mine], k_cache, v_cache, blocks, positions, length).to(output.dtype)
            return output

        def _attend(self, query: Any, k_cache: Any, v_cache: Any, blocks: Any, positions: Any, length: int) -> Any:
            used = blocks[: -(-length // k_cache.size(1))]
            groups = self.num_heads // self.num_kv_heads
            keys, values = (
                cache[used].flatten(0, 1)[:length].transpose(0, 1).repeat_interleave(groups, 0)[None].float()
                for cache in (k_cache, v_cache)
            )
            allowed = torch.arange(length)[None] <= positions[:, None]
            attended = torch.nn.functional.scaled_dot_product_attention(
                query.transpose(0, 1)[None].float(), keys, values, attn_mask=allowed, scale=self.scale
            )
            return attended[0].transpose(0, 1)

    class CpuBackend(DefaultOpsBackend):  # type: ignore[misc]
        @staticmethod
        def get_name() -> str:
            return "cpu"

        @classmethod
        def build_op(cls, spec: Any, *, enable_deterministic: bool = False) -> Any:  # since 0.18
            if isinstance(spec, attention.PagedAttentionBuildSpec):
                return PagedAttention(spec.num_heads, spec.head_dim, spec.scale, spec.num_kv_heads, spec.v_head_dim)
            return super().build_op(spec, enable_deterministic=enable_deterministic)

        @classmethod
        def get_layer_impl_builder(cls, layer_type: Any) -> Any:  # until 0.17
            if layer_type.name != "PagedAttention":
                return super().get_layer_impl_builder(layer_type)

            def build(
                num_heads: int,
                head_size: int,
                scale: Any = None,
                num_kv_heads: Any = None,
                v_head_size: Any = None,
                **_: Any,
            ) -> PagedAttention:
                return PagedAttention(num_heads, head_size, scale, num_kv_heads, v_head_size)

            return types.SimpleNamespace(build=build)

        @staticmethod
        def get_attention_metadata_cls() -> Any:
            return types.SimpleNamespace

        @classmethod
        def update_step_context(cls, step_context: Any) -> Any:
            lengths = torch.stack([step_context.q_seqlens, step_context.kv_seqlens])
            sums = torch.nn.functional.pad(torch.cumsum(lengths, dim=1, dtype=torch.int32), (1, 0))
            step_context.attn_metadata = types.SimpleNamespace(
                is_decoding=step_context.is_decoding,
                block_offsets=step_context.block_offsets,
                q_start_loc=step_context.q_start_loc,
                q_seqlens=step_context.q_seqlens,
                kv_seqlens=step_context.kv_seqlens,
                cu_seqlens_q=sums[0],
                cu_seqlens_k=sums[1],
                quant_policy=step_context.kv_quant_policy,
                kv_start_loc=None,
                kv_flatten_size=None,
            )
            return step_context

        @staticmethod
        def device_count() -> int:
            return 1

    selector._get_backend = lambda: CpuBackend
