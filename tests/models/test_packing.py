"""Texts laid end to end, and the groups in which attention takes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrofit.models.packing import PackedTexts

texts_of_any_length = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=90), min_size=1, max_size=12).map(
    lambda texts: sorted(texts, key=len, reverse=True)
)


@given(texts_of_any_length)
def test_every_token_stands_once_with_its_place_and_its_text(texts: list[list[int]]) -> None:
    packed = PackedTexts.of(texts)
    assert packed.input_ids.tolist() == [token for text in texts for token in text]
    assert packed.positions.tolist() == [place for text in texts for place in range(len(text))]
    assert packed.text_of().tolist() == [number for number, text in enumerate(texts) for _ in text]
    assert packed.input_ids[packed.first_tokens()].tolist() == [text[0] for text in texts]


@given(texts_of_any_length)
def test_groups_pad_each_text_to_the_longest_and_back(texts: list[list[int]]) -> None:
    packed = PackedTexts.of(texts)
    rows = torch.stack([packed.input_ids + 1, packed.positions], dim=1)
    seen = []
    number = 0
    for group in packed.groups:
        own = rows[group.tokens]
        padded, spread = (layout(own).view(group.texts, group.longest, 2) for layout in (group.pad, group.spread))
        for text in range(group.texts):
            length = len(texts[number])
            expected = [[token + 1, place] for place, token in enumerate(texts[number])]
            assert padded[text, :length].tolist() == spread[text, :length].tolist() == expected
            assert padded[text, length:].tolist() == [expected[0]] * (group.longest - length)
            assert not spread[text, length:].any()
            if group.is_padding is not None:
                assert group.is_padding[text].tolist() == [place >= length for place in range(group.longest)]
            number += 1
        target = torch.zeros_like(rows)
        group.unpad(padded.flatten(0, 1), target)
        assert target[group.tokens].equal(own)
        assert target.count_nonzero() == own.count_nonzero()
        seen.append(group.tokens)
    assert number == len(texts)
    assert [tokens.start for tokens in seen] == [0, *(tokens.stop for tokens in seen[:-1])]


def test_attention_pads_to_the_next_multiple_of_16() -> None:
    packed = PackedTexts.of([[0] * length for length in (300, 299, 289, 288, 64, 64, 49, 16, 1)])
    assert [(group.texts, group.longest, group.padded is None) for group in packed.groups] == [
        (3, 304, False),
        (1, 288, True),
        (3, 64, False),
        (2, 16, False),
    ]
    assert [group.padded for group in PackedTexts.of([[0] * 32] * 3).groups] == [None]


def test_texts_must_come_longest_first() -> None:
    with pytest.raises(ValueError, match="longest first"):
        PackedTexts.of([[1], [1, 2]])
