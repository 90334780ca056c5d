"""Search gives what the whole matrix product gives, whatever the blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.negatives import search
from retrofit.negatives.search import top_k


class Matrix:
    """Embeddings in memory, or made up block by block."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return self.vectors[positions]


class Seeded:
    """Vectors that are made when they are asked for: as many as one likes, and none in memory."""

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return np.random.default_rng(int(positions[0])).normal(size=(len(positions), 64)).astype(np.float32)


def matrix(rows: int, seed: int) -> np.ndarray:
    # Whole numbers: products are exact, and many of them equal.
    return np.random.default_rng(seed).integers(-3, 4, (rows, 8)).astype(np.float32)


@given(
    st.integers(0, 9),
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(1, 14),
    st.integers(1, 5),
    st.integers(0, 99),
    st.data(),
)
@settings(max_examples=100)
def test_the_best_are_those_of_the_whole_product(
    n_queries: int, n_passages: int, k: int, block: int, group: int, seed: int, data: st.DataObject
) -> None:
    queries, passages = matrix(12, seed), matrix(40, seed + 1)
    asked = np.array(data.draw(st.permutations(range(12)))[:n_queries], dtype=np.int64)
    searched = np.sort(np.array(data.draw(st.permutations(range(40)))[:n_passages], dtype=np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_PASSAGES_A_BLOCK", block)
        patch.setattr(search, "_COLUMNS_A_GROUP", group)
        patch.setattr(search, "_queries_a_block", lambda *_: block)
        found = top_k(Matrix(queries), asked, Matrix(passages), searched, k)
    product = queries[asked] @ passages[searched].T
    best = -np.sort(-product, axis=1)[:, :k]
    width = best.shape[1]
    assert found.passages.shape == found.scores.shape == (n_queries, k)
    np.testing.assert_array_equal(found.scores[:, :width], best)
    assert (found.passages[:, width:] == -1).all()
    assert np.isneginf(found.scores[:, width:]).all()
    for row, query in enumerate(asked):
        places = found.passages[row, :width]
        assert len(set(places.tolist())) == width
        assert set(places.tolist()) <= set(searched.tolist())
        np.testing.assert_array_equal(passages[places] @ queries[query], best[row])
        ties = list(zip((-best[row]).tolist(), places.tolist(), strict=True))
        assert ties == sorted(ties)


def test_memory_stays_below_the_bound_however_many_passages() -> None:
    peaks = []
    for n_passages in (20_000, 200_000):
        asked, searched = np.arange(2000), np.arange(n_passages)
        tracemalloc.start()
        top_k(Seeded(), asked, Seeded(), searched, 10, memory_mb=64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * 200_000 * 2  # numpy's share: positions, nothing that grows with the scores


def test_the_queries_of_a_block_fit_into_the_memory() -> None:
    for memory_mb in (64, 512):
        block = search._queries_a_block(memory_mb, 384, 50)
        scores = block * search._PASSAGES_A_BLOCK * 4
        assert memory_mb * 0.3e6 < scores < memory_mb * 1e6
