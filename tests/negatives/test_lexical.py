"""BM25 in any script, and the fusion of searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.bm25 import pieces_of
from retrofit.negatives.fusion import fuse
from retrofit.negatives.lexical import top_k_lexical
from retrofit.negatives.search import Candidates

PASSAGES = [
    "die lampe in der küche",
    "東京の住所は秘密です",
    "der garten am haus",
    "大阪の天気は晴れです",
    "the KITCHEN door",
]


def found(encoder: BiEncoder, queries: list[str], searched: list[int], k: int) -> Candidates:
    def pieces(texts: list[str]) -> Any:
        return lambda places: pieces_of(encoder.tokenizer, [texts[place] for place in places])

    return top_k_lexical(pieces(queries), np.arange(len(queries)), pieces(PASSAGES), np.array(searched), k)


@pytest.mark.parametrize(("query", "best"), [("Lampe", 0), ("天気", 3), ("住所", 1), ("kitchen", 4)])
def test_shared_pieces_are_found_with_and_without_blanks(encoder: BiEncoder, query: str, best: int) -> None:
    candidates = found(encoder, [query], [0, 1, 2, 3, 4], 3)
    assert candidates.passages[0, 0] == best
    assert candidates.scores[0, 0] == candidates.scores[0].max() > 0


def test_only_what_is_searched_and_shares_a_piece_is_a_candidate(encoder: BiEncoder) -> None:
    candidates = found(encoder, ["lampe küche garten", "天気"], [0, 2], 4)
    assert set(candidates.passages[0].tolist()) == {0, 2, -1}
    assert candidates.passages[0].tolist()[2:] == [-1, -1]
    assert np.isneginf(candidates.scores[0, 2:]).all()
    assert candidates.passages.shape == (2, 4)
    assert found(encoder, ["lampe"], [], 2).passages.tolist() == [[-1, -1]]


LISTS = st.lists(st.integers(0, 12), max_size=6, unique=True)


@given(st.lists(st.tuples(LISTS, LISTS, LISTS), min_size=1, max_size=4), st.integers(1, 9))
def test_fusion_adds_reciprocal_ranks(queries: list[tuple[list[int], list[int], list[int]]], k: int) -> None:
    def table(lists: list[list[int]]) -> Candidates:
        passages = np.full((len(lists), 6), -1)
        for row, places in enumerate(lists):
            passages[row, : len(places)] = places
        return Candidates(passages, -passages.astype(np.float32))

    fused = fuse([table([query[number] for query in queries]) for number in range(3)], k)
    assert fused.passages.shape == (len(queries), k)
    for row, lists in enumerate(queries):
        sums: dict[int, float] = {}
        for places in lists:
            for rank, place in enumerate(places, start=1):
                sums[place] = sums.get(place, 0) + 1 / (60 + rank)
        best = sorted(sums, key=lambda place: (-sums[place], place))[:k]
        taken = fused.passages[row][fused.passages[row] >= 0].tolist()
        assert len(taken) == len(best)
        assert [sums[place] for place in taken] == pytest.approx([sums[place] for place in best])
        np.testing.assert_allclose(fused.scores[row, : len(best)], [sums[place] for place in taken], rtol=1e-6)
