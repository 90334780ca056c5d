"""Self-attention of packed texts, forward and backward, on plain matrix products.

On a CPU the fused attention kernel of PyTorch is slow backward (benchmarks/attention.csv); products of small batches,
with nothing kept but the probabilities, are faster than that and than what autograd makes of the plain formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrofit.models.packing import Group, PackedTexts


def attend(projections: Tensor, packed: PackedTexts, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Return softmax(q kᵀ) v of every text and head, and the probabilities for :func:`attend_backward`.

    Args:
        projections: queries, keys and values side by side, ``[tokens, 3 · hidden]``; the queries are scaled already.
        packed: where the texts lie.
        heads: attention heads.

    Returns:
        ``[tokens, hidden]``, and for every group ``[texts · heads, longest, longest]``.
    """
    tokens, width = projections.shape
    attended = projections.new_empty((tokens, width // 3))
    kept = []
    for group in packed.groups:
        query, key, value = _by_head(projections[group.tokens], group, heads)
        scores = torch.bmm(query, key.transpose(1, 2))
        if group.is_padding is not None:
            scores.view(group.texts, heads, group.longest, group.longest).masked_fill_(group.is_padding, float("-inf"))
        probabilities = scores.softmax(-1)
        attended[group.tokens] = group.unpad(_by_token(torch.bmm(probabilities, value).unsqueeze(0), group, heads))
        kept.append(probabilities)
    return attended, kept


def attend_backward(
    gradient: Tensor, projections: Tensor, probabilities: list[Tensor], packed: PackedTexts, heads: int
) -> Tensor:
    """Return the gradient of the projections, ``[tokens, 3 · hidden]``.

    Args:
        gradient: of what :func:`attend` returned, ``[tokens, hidden]``.
        projections: what it was given.
        probabilities: what it kept.
        packed: where the texts lie.
        heads: attention heads.
    """
    result = torch.empty_like(projections)
    for group, probability in zip(packed.groups, probabilities, strict=True):
        query, key, value = _by_head(projections[group.tokens], group, heads)
        (outer,) = _by_head(gradient[group.tokens], group, heads, parts=1, zero=True)
        by_head = query.new_empty((3, *query.shape))
        torch.bmm(probability.transpose(1, 2), outer, out=by_head[2])
        scores = torch._softmax_backward_data(
            torch.bmm(outer, value.transpose(1, 2)), probability, -1, probability.dtype
        )
        torch.bmm(scores, key, out=by_head[0])
        torch.bmm(scores.transpose(1, 2), query, out=by_head[1])
        result[group.tokens] = group.unpad(_by_token(by_head, group, heads))
    return result


def _by_head(rows: Tensor, group: Group, heads: int, parts: int = 3, *, zero: bool = False) -> Tensor:
    """Return ``[parts, texts · heads, longest, head]`` of rows that hold so many parts side by side.

    Args:
        rows: ``[tokens of the group, parts · hidden]``.
        group: which texts they are.
        heads: attention heads.
        parts: how many.
        zero: whether padding is zero; otherwise it is the text's first token, which costs less.
    """
    padded = group.spread(rows) if zero else group.pad(rows)
    apart = padded.view(group.texts, group.longest, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return apart.reshape(parts, group.texts * heads, group.longest, -1)


def _by_token(parts: Tensor, group: Group, heads: int) -> Tensor:
    """Return ``[texts · longest, parts · hidden]`` of ``[parts, texts · heads, longest, head]``."""
    apart = parts.view(len(parts), group.texts, heads, group.longest, -1).permute(1, 3, 0, 2, 4)
    return apart.reshape(group.texts * group.longest, -1)
