"""Exact search by inner product, block by block: memory is bounded whatever the number of passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from retrofit.models.embeddings import Embeddings

_PASSAGES_A_BLOCK = 4096
_COLUMNS_A_GROUP = 16


class Rows(Protocol):
    """Embeddings by position."""

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return float32 ``[len(positions), dimension]``."""


@dataclass(frozen=True)
class Candidates:
    """The best passages of each query.

    Attributes:
        passages: int64 ``[queries, k]``, positions of passages, best first; -1 where there are fewer.
        scores: float32 ``[queries, k]``, -inf where there is none.
    """

    passages: np.ndarray
    scores: np.ndarray


def top_k(
    queries: Rows,
    query_positions: np.ndarray,
    passages: Rows,
    passage_positions: np.ndarray,
    k: int,
    memory_mb: int = 512,
) -> Candidates:
    """Return the ``k`` passages with the largest inner product for each query, best first.

    The result is exact. Equal scores are ordered by position; which of several equal ones at the cut is taken may
    depend on the block size.

    Args:
        queries: embeddings of queries.
        query_positions: int64, which of them search.
        passages: embeddings of passages.
        passage_positions: int64, ascending: which of them are searched.
        k: how many to find.
        memory_mb: bound of what the search holds at once, in megabytes, the result not counted.
    """
    found = np.full((len(query_positions), k), -1, dtype=np.int64)
    scores = np.full((len(query_positions), k), -np.inf, dtype=np.float32)
    if len(query_positions) and len(passage_positions):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        block = _queries_a_block(memory_mb, queries.rows(query_positions[:1]).shape[1], k)
        for start in range(0, len(query_positions), block):
            part = slice(start, start + block)
            vectors = torch.from_numpy(queries.rows(query_positions[part])).to(device)
            places, values = _search_block(vectors, passages, passage_positions, min(k, len(passage_positions)))
            found[part, : places.shape[1]] = passage_positions[places]
            scores[part, : values.shape[1]] = values
    return Candidates(found, scores)


@dataclass(frozen=True)
class DenseSearch:
    """Search among embeddings; other processes can do it as well.

    Attributes:
        queries: embeddings of queries.
        passages: embeddings of passages.
        memory_mb: bound of what a search holds at once, in megabytes.
    """

    queries: Embeddings
    passages: Embeddings
    memory_mb: int

    def __call__(self, asked: np.ndarray, searched: np.ndarray, k: int) -> Candidates:
        """Return the best ``k`` of some passages (int64, ascending) for some queries (int64)."""
        return top_k(self.queries, asked, self.passages, searched, k, self.memory_mb)

    def queries_at_once(self, k: int) -> int:
        """Return how many queries are compared at once: asking for that many at a time changes no result."""
        return _queries_a_block(self.memory_mb, self.queries.dimension, k)


def _queries_a_block(memory_mb: int, dimension: int, k: int) -> int:
    """Return how many queries go together: their scores of a block of passages, their vectors, and what is merged."""
    spent = 4 * dimension * _PASSAGES_A_BLOCK
    # What is merged stands there as scores and as columns, and once more of each when it joins the best so far.
    merged = min(_PASSAGES_A_BLOCK, k * _COLUMNS_A_GROUP) + k
    of_a_query = 4 * (_PASSAGES_A_BLOCK + dimension + 6 * k) + 32 * merged
    return max(1, (memory_mb * 1_000_000 - spent) // of_a_query)


def _search_block(
    queries: torch.Tensor, passages: Rows, positions: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    best_scores = torch.full((len(queries), k), -torch.inf, device=queries.device)
    best_places = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    # One matrix for all blocks: fresh memory of this size would be mapped, cleared and given back for each.
    products = torch.empty(len(queries) * min(_PASSAGES_A_BLOCK, len(positions)), device=queries.device)
    for start in range(0, len(positions), _PASSAGES_A_BLOCK):
        vectors = torch.from_numpy(passages.rows(positions[start : start + _PASSAGES_A_BLOCK])).to(queries.device)
        scores = products[: len(queries) * len(vectors)].view(len(queries), len(vectors))
        torch.mm(queries, vectors.T, out=scores)
        scores, found = _worth_merging(scores, best_scores[:, -1:], k)
        best_scores, kept = torch.topk(torch.cat([best_scores, scores], dim=1), k, dim=1)
        best_places = torch.cat([best_places, found + start], dim=1).gather(1, kept)
    places, values = best_places.cpu().numpy(), best_scores.cpu().numpy()
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)


def _worth_merging(scores: torch.Tensor, bounds: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and their columns among which are all that belong to the best ``k`` of a query.

    The best ``k`` lie in the ``k`` groups of columns with the largest maxima, and only in those whose maximum exceeds
    the best found so far: few, soon. Maxima cost a fraction of a sort of the whole block, which takes as long as its
    product.

    Args:
        scores: float32 ``[queries, passages]``.
        bounds: float32 ``[queries, 1]``, what a score has to exceed.
        k: how many of a query are of interest.

    Returns:
        float32 and int64 ``[queries, n]``.
    """
    whole = scores.shape[1] - scores.shape[1] % _COLUMNS_A_GROUP
    grouped = torch.unflatten(scores[:, :whole], 1, (-1, _COLUMNS_A_GROUP))
    maxima = grouped.amax(dim=2)
    width = min(k, int((maxima > bounds).sum(dim=1).max())) if whole else 0
    groups = torch.topk(maxima, width, dim=1).indices.unsqueeze(2)
    columns = groups * _COLUMNS_A_GROUP + torch.arange(_COLUMNS_A_GROUP, device=scores.device)
    of_rest = torch.arange(whole, scores.shape[1], device=scores.device).expand(len(scores), -1)
    columns = torch.cat([columns.flatten(1), of_rest], dim=1)
    return scores.gather(1, columns), columns
