"""Embeddings of many chunks of texts whose activations are not kept (gradient caching, Gao et al. 2021).

PyTorch's own checkpoints keep a graph for every chunk. Its small parts lie in the heap between the large buffers of the
chunks, which glibc then does not use again: of 4,096 pairs it held 2 GB of nothing but holes. Here a chunk leaves
nothing behind but its rows of one tensor, forward, and its share of one sum of gradients, backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Chunk = Sequence[Sequence[int]]
"""Token ids of some texts."""


def embed_twice(
    embed: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], learnt: Sequence[Tensor], dimension: int
) -> Tensor:
    """Return the embeddings of all texts, float32 ``[texts, dimension]``, in the order of the chunks.

    In the backward pass every chunk is embedded once more, and its activations are gone before the next.

    Args:
        embed: returns the embeddings of a chunk, float32 ``[texts, dimension]``; the same both times.
        chunks: one at least.
        learnt: what of the model gets gradients: leaves that require them.
        dimension: components of an embedding.
    """
    embeddings: Tensor = _EmbeddedTwice.apply(embed, chunks, dimension, *learnt)  # type: ignore[no-untyped-call]
    return embeddings


class _EmbeddedTwice(torch.autograd.Function):
    """One node of the graph for all chunks: DDP waits for one gradient of every weight and gets one."""

    @staticmethod
    def forward(
        ctx: Any, embed: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], dimension: int, *learnt: Tensor
    ) -> Any:
        ctx.embed, ctx.chunks, ctx.learnt = embed, chunks, learnt
        embeddings = torch.empty(sum(map(len, chunks)), dimension, dtype=torch.float32)
        for chunk, rows in zip(chunks, _shares(embeddings, chunks), strict=True):
            rows.copy_(embed(chunk))
        return embeddings

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        sums = [torch.zeros_like(tensor) for tensor in ctx.learnt]
        for chunk, share in zip(ctx.chunks, _shares(gradients[0], ctx.chunks), strict=True):
            with torch.enable_grad():
                embeddings = ctx.embed(chunk)
            of_chunk = torch.autograd.grad(embeddings, ctx.learnt, share, materialize_grads=True)
            for total, part in zip(sums, of_chunk, strict=True):
                total.add_(part)
        return None, None, None, *sums


def _shares(rows: Tensor, chunks: Sequence[Chunk]) -> tuple[Tensor, ...]:
    """Return the rows of every chunk."""
    return torch.split(rows, [len(chunk) for chunk in chunks])
