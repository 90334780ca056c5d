"""Attention of packed texts: the two ways against each other, and against the formula written out for every text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.fused_encoder import FusedEncoder
from retrofit.models.packed_attention import attend, attend_to_encode
from retrofit.models.packing import PackedTexts

HEADS, HIDDEN = 3, 12


def written_out(projections: Tensor, lengths: list[int]) -> Tensor:
    attended = []
    for text in projections.split(lengths):
        query, key, value = text.view(len(text), 3, HEADS, -1).permute(1, 2, 0, 3)
        attended.append(((query @ key.transpose(1, 2)).softmax(-1) @ value).transpose(0, 1).reshape(len(text), -1))
    return torch.cat(attended)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 9))
def test_both_ways_are_the_formula(lengths: list[int], seed: int) -> None:
    lengths.sort(reverse=True)
    packed = PackedTexts.of([[0] * length for length in lengths])
    projections = torch.randn(sum(lengths), 3 * HIDDEN, generator=torch.Generator().manual_seed(seed))
    expected = written_out(projections, lengths)
    torch.testing.assert_close(attend(projections, packed, HEADS)[0], expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(attend_to_encode(projections, packed, HEADS), expected, atol=2e-5, rtol=1e-4)
    rounded = attend_to_encode(projections.bfloat16(), packed, HEADS)
    torch.testing.assert_close(
        rounded.float(), written_out(projections.bfloat16().float(), lengths), atol=0.05, rtol=0.05
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_learns_is_embedded_to_the_last_digit_with_and_without_gradients(
    load_tiny: Callable[..., BiEncoder], dtype: torch.dtype
) -> None:
    """Gradient caching embeds a text twice, first without gradients."""
    encoder = load_tiny()
    packed = PackedTexts.of([list(range(5, 5 + length)) for length in (40, 33, 20, 7)])
    fused = FusedEncoder(encoder.backbone, dtype, learns=True)
    with_gradients = fused(packed, fused.weights())
    with torch.no_grad():
        without = fused(packed, fused.weights())
        to_encode = FusedEncoder(encoder.backbone, dtype, learns=False)(packed, fused.weights())
    assert with_gradients.requires_grad
    assert torch.equal(with_gradients, without)
    torch.testing.assert_close(to_encode, without, atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=0.05)
