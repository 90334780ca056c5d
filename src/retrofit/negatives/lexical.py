"""BM25 over the pieces of a model's tokenizer: a piece needs no blanks around it, so every script can be searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import bm25s
import numpy as np

from retrofit.negatives.search import Candidates

Pieces = Callable[[np.ndarray], list[list[str]]]
"""Returns the pieces of the texts at given positions."""

_QUERIES_A_BLOCK = 10_000


def pieces_of(tokenizer: object, texts: Sequence[str]) -> list[list[str]]:
    """Return the pieces of case-folded texts, without special tokens.

    Args:
        tokenizer: a fast tokenizer.
        texts: queries or passages, without prompts.
    """
    if not texts:
        return []
    encoded = tokenizer([text.casefold() for text in texts], add_special_tokens=False, verbose=False)  # type: ignore[operator]
    return [[str(piece) for piece in ids] for ids in encoded["input_ids"]]


def top_k_lexical(
    queries: Pieces, query_positions: np.ndarray, passages: Pieces, passage_positions: np.ndarray, k: int
) -> Candidates:
    """Return the ``k`` passages with the highest BM25 score (Lucene's variant, k1 1.5, b 0.75) for each query.

    Passages that share no piece with a query are no candidates.

    Args:
        queries: pieces of queries.
        query_positions: int64, which of them search.
        passages: pieces of passages.
        passage_positions: int64, which of them are searched.
        k: how many to find.
    """
    found = np.full((len(query_positions), k), -1, dtype=np.int64)
    scores = np.full((len(query_positions), k), -np.inf, dtype=np.float32)
    width = min(k, len(passage_positions))
    if len(query_positions) and width:
        index = bm25s.BM25()
        index.index(passages(passage_positions), show_progress=False)
        for start in range(0, len(query_positions), _QUERIES_A_BLOCK):
            part = slice(start, start + _QUERIES_A_BLOCK)
            asked = queries(query_positions[part])
            places, values = index.retrieve(asked, k=width, show_progress=False, backend_selection="numpy")
            shares = values > 0
            found[part, :width] = np.where(shares, passage_positions[places], -1)
            scores[part, :width] = np.where(shares, values, -np.inf)
    return Candidates(found, scores)
