"""Texts of a batch laid end to end, without padding, and how attention finds each of them again.

Everything in an encoder but attention works on one token at a time, so padding is wasted there: the texts stand in one
row of tokens. For attention alone, texts of similar length are laid out as a padded group each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MULTIPLE = 16
"""Attention pads texts to a multiple of this length. Fewer groups cost padding, more cost calls; 32 is slower."""


@dataclass(frozen=True)
class Group:
    """Neighbouring texts of a packed row that attention takes together.

    Attributes:
        tokens: where they lie in the row.
        texts: how many they are.
        longest: tokens to which each is padded.
        padded: int64 ``[texts · longest]``, position among the group's tokens for every place of the padded layout; a
            place of padding holds the text's first token. None where all texts are as long.
        filled: int64 ``[tokens of the group]``, place of every token in the padded layout. None likewise.
        is_padding: bool ``[texts, longest]``. None likewise.
    """

    tokens: slice
    texts: int
    longest: int
    padded: Tensor | None = None
    filled: Tensor | None = None
    is_padding: Tensor | None = None

    def pad(self, rows: Tensor) -> Tensor:
        """Return ``[texts · longest, …]`` from the group's rows ``[tokens of the group, …]``."""
        return rows if self.padded is None else rows.index_select(0, self.padded)

    def unpad(self, rows: Tensor, target: Tensor) -> None:
        """Write the group's rows from the padded layout into those of the whole row of tokens."""
        if self.filled is None:
            target[self.tokens] = rows
        else:
            torch.index_select(rows, 0, self.filled, out=target[self.tokens])

    def spread(self, rows: Tensor) -> Tensor:
        """Return ``[texts · longest, …]`` from the group's rows, zero where there is padding."""
        if self.filled is None:
            return rows
        spread = rows.new_zeros((self.texts * self.longest, *rows.shape[1:]))
        return spread.index_copy_(0, self.filled, rows)


@dataclass(frozen=True)
class PackedTexts:
    """The texts of a chunk in one row, longest first.

    Attributes:
        input_ids: int64 ``[tokens]``.
        positions: int64 ``[tokens]``, place of each token in its text, from 0.
        lengths: int64 ``[texts]``, tokens of each, falling.
        groups: what attention takes together.
    """

    input_ids: Tensor
    positions: Tensor
    lengths: Tensor
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, token_ids: Sequence[Sequence[int]]) -> PackedTexts:
        """Pack texts given as token ids.

        Args:
            token_ids: of each text, longest first, none empty.

        Raises:
            ValueError: the texts do not come longest first.
        """
        lengths = [len(ids) for ids in token_ids]
        if lengths != sorted(lengths, reverse=True):
            raise ValueError("texts are packed longest first")
        input_ids = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64)
        positions = torch.cat([torch.arange(length) for length in lengths])
        counts = torch.tensor(lengths, dtype=torch.int64)
        return cls(input_ids, positions, counts, tuple(_groups(lengths)))

    def text_of(self) -> Tensor:
        """Return the number of the text of every token, int64 ``[tokens]``."""
        return torch.arange(len(self.lengths), device=self.lengths.device).repeat_interleave(self.lengths)

    def first_tokens(self) -> Tensor:
        """Return the position of every text's first token, int64 ``[texts]``."""
        return self.lengths.cumsum(0) - self.lengths


def _groups(lengths: Sequence[int]) -> list[Group]:
    groups = []
    token = 0
    for blocks, same in itertools.groupby(lengths, lambda length: -(-length // _MULTIPLE)):
        members = list(same)
        tokens = slice(token, token + sum(members))
        groups.append(_group(members, tokens, blocks * _MULTIPLE))
        token = tokens.stop
    return groups


def _group(lengths: Sequence[int], tokens: slice, longest: int) -> Group:
    if lengths[-1] == longest:
        return Group(tokens, len(lengths), longest)
    counts = torch.tensor(lengths)
    starts = (counts.cumsum(0) - counts).unsqueeze(1)
    places = torch.arange(longest).expand(len(lengths), longest)
    is_token = places < counts.unsqueeze(1)
    padded = torch.where(is_token, starts + places, starts).flatten()
    filled = is_token.flatten().nonzero().squeeze(1)
    return Group(tokens, len(lengths), longest, padded, filled, ~is_token)
