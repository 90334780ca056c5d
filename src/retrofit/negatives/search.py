"""Exact search by inner product, block by block: memory is bounded whatever the number of passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from retrofit.negatives.embeddings import Embeddings

_PASSAGES_A_BLOCK = 4096


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
    """Return how many queries go together: their scores of a block of passages, their vectors, and twice their best."""
    spent = 4 * dimension * _PASSAGES_A_BLOCK
    of_a_query = 4 * (2 * _PASSAGES_A_BLOCK + dimension + 6 * k)
    return max(1, (memory_mb * 1_000_000 - spent) // of_a_query)


def _search_block(
    queries: torch.Tensor, passages: Rows, positions: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    best_scores = torch.full((len(queries), 0), 0.0, device=queries.device)
    best_places = torch.zeros((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(positions), _PASSAGES_A_BLOCK):
        vectors = torch.from_numpy(passages.rows(positions[start : start + _PASSAGES_A_BLOCK])).to(queries.device)
        scores, found = torch.topk(queries @ vectors.T, min(k, len(vectors)), dim=1)
        best_scores = torch.cat([best_scores, scores], dim=1)
        best_places = torch.cat([best_places, found + start], dim=1)
        if best_scores.shape[1] > k:
            best_scores, kept = torch.topk(best_scores, k, dim=1)
            best_places = best_places.gather(1, kept)
    places, values = best_places.cpu().numpy(), best_scores.cpu().numpy()
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)
