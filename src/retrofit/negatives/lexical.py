"""BM25 among the passages of a pool, by the pieces of a model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrofit.models.bm25 import Bm25Index
from retrofit.negatives.search import Candidates

Pieces = Callable[[np.ndarray], list[list[str]]]
"""Returns the pieces of the texts at given positions."""


def top_k_lexical(
    queries: Pieces, query_positions: np.ndarray, passages: Pieces, passage_positions: np.ndarray, k: int
) -> Candidates:
    """Return the ``k`` passages with the highest BM25 score for each query.

    Passages that share no piece with a query are no candidates.

    Args:
        queries: pieces of queries.
        query_positions: int64, which of them search.
        passages: pieces of passages.
        passage_positions: int64, which of them are searched.
        k: how many to find.
    """
    if not len(query_positions) or not len(passage_positions):
        shape = (len(query_positions), k)
        return Candidates(np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32))
    places, scores = Bm25Index(passages(passage_positions)).search(queries(query_positions), k)
    return Candidates(np.where(places < 0, -1, passage_positions[places]), scores)
