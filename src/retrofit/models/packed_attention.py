"""Self-attention of packed texts: to learn, on plain matrix products; to encode, by PyTorch's fused kernel.

On a CPU that kernel is fast forward (benchmarks/encoding.csv) and slow backward (benchmarks/attention.csv); products of
small batches, with little kept but the probabilities, are faster than that and than what autograd makes of the plain
formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from retrofit.models.packing import Group, PackedTexts


def attend(projections: Tensor, packed: PackedTexts, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Return softmax(q kᵀ) v of every text and head, and what :func:`attend_backward` needs.

    Args:
        projections: queries, keys and values side by side, ``[tokens, 3 · hidden]``; the queries are scaled already.
        packed: where the texts lie.
        heads: attention heads.

    Returns:
        ``[tokens, hidden]``; and for every group first queries, keys and values by head,
        ``[3, texts · heads, longest, head]``, then the probabilities, ``[texts · heads, longest, longest]``.
    """
    tokens, width = projections.shape
    attended = projections.new_empty((tokens, width // 3))
    kept = []
    for group in packed.groups:
        by_head = _by_head(group.pad(projections[group.tokens]), group, heads, parts=3)
        query, key, value = by_head
        scores = torch.baddbmm(_bias(group, heads, query), query, key.transpose(1, 2))
        probabilities = scores.to(_softmax_type(group, scores)).softmax(-1).to(scores.dtype)
        group.unpad(_by_token(torch.bmm(probabilities, value).unsqueeze(0), group, heads), attended)
        kept += [by_head, probabilities]
    return attended, kept


def attend_to_encode(projections: Tensor, packed: PackedTexts, heads: int) -> Tensor:
    """Return what :func:`attend` does, ``[tokens, hidden]``, within rounding; there is no way back.

    Args:
        projections: see :func:`attend`.
        packed: likewise.
        heads: likewise.
    """
    tokens, width = projections.shape
    attended = projections.new_empty((tokens, width // 3))
    for group in packed.groups:
        padded = group.pad(projections[group.tokens]).view(group.texts, group.longest, 3, heads, -1)
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        bias = _padding_bias(group, padded)
        mask = None if bias is None else bias[:, None, None, :]
        by_head = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        group.unpad(by_head.transpose(1, 2).reshape(group.texts * group.longest, -1), attended)
    return attended


def attend_backward(gradient: Tensor, kept: Sequence[Tensor], packed: PackedTexts, heads: int) -> Tensor:
    """Return the gradient of the projections, ``[tokens, 3 · hidden]``.

    Args:
        gradient: of what :func:`attend` returned, ``[tokens, hidden]``.
        kept: what it returned besides.
        packed: where the texts lie.
        heads: attention heads.
    """
    tokens, hidden = gradient.shape
    result = gradient.new_empty((tokens, 3 * hidden))
    for group, (query, key, value), probabilities in zip(packed.groups, kept[::2], kept[1::2], strict=True):
        (outer,) = _by_head(group.spread(gradient[group.tokens]), group, heads, parts=1)
        by_head = query.new_empty((3, *query.shape))
        torch.bmm(probabilities.transpose(1, 2), outer, out=by_head[2])
        of_probabilities = torch.bmm(outer, value.transpose(1, 2))
        dtype = _softmax_type(group, query)
        scores = torch._softmax_backward_data(of_probabilities.to(dtype), probabilities.to(dtype), -1, dtype)
        scores = scores.to(query.dtype)
        torch.bmm(scores, key, out=by_head[0])
        torch.bmm(scores.transpose(1, 2), query, out=by_head[1])
        group.unpad(_by_token(by_head, group, heads), result)
    return result


def _bias(group: Group, heads: int, like: Tensor) -> Tensor:
    """Return what is added to the scores of every key, ``[texts · heads, 1, longest]``, so that padding has no share.

    As part of the product it costs next to nothing, where filling in the scores would be another pass over them.
    """
    bias = _padding_bias(group, like)
    return like.new_zeros(1) if bias is None else bias.repeat_interleave(heads, dim=0).unsqueeze(1)


def _padding_bias(group: Group, like: Tensor) -> Tensor | None:
    """Return what is added to the scores of every key of a text, ``[texts, longest]``; None without padding."""
    if group.is_padding is None:
        return None
    return like.new_zeros(group.is_padding.shape).masked_fill_(group.is_padding, -30_000.0)


def _softmax_type(group: Group, like: Tensor) -> torch.dtype:
    """Return the precision in which softmax is fastest.

    Rows of 32 numbers in bfloat16 fill the vector registers of the CPUs that compute in it. Of other rows the rest goes
    number by number, which takes longer than to convert them.
    """
    return torch.float32 if like.dtype == torch.bfloat16 and group.longest % 32 else like.dtype


def _by_head(rows: Tensor, group: Group, heads: int, parts: int) -> Tensor:
    """Return ``[parts, texts · heads, longest, head]`` of ``[texts · longest, parts · hidden]``."""
    apart = rows.view(group.texts, group.longest, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return apart.reshape(parts, group.texts * heads, group.longest, -1)


def _by_token(parts: Tensor, group: Group, heads: int) -> Tensor:
    """Return ``[texts · longest, parts · hidden]`` of ``[parts, texts · heads, longest, head]``."""
    apart = parts.view(len(parts), group.texts, heads, group.longest, -1).permute(1, 3, 0, 2, 4)
    return apart.reshape(group.texts * group.longest, -1)
