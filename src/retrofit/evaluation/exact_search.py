"""Exact search over all passages of a task, with ties broken as trec_eval breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

_SCORES_AT_ONCE = 2**24

Scores = Callable[[slice], Tensor]
"""Scores of some of the queries: float32 ``[queries of the slice, passages]``."""


def inner_products(passages: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """Return a function from queries ``[queries, dimension]`` to scores ``[queries, passages]``, float32.

    Passages with the same vector have the same score to the bit: in a matrix product of all of them the last digit may
    depend on the column, and would decide which of two equal passages comes first.

    Args:
        passages: float32 ``[passages, dimension]``.
    """
    row_of = {vector.tobytes(): row for row, vector in reversed(list(enumerate(passages)))}
    first = np.array([row_of[vector.tobytes()] for vector in passages], dtype=np.int64)
    rows, column_of = np.unique(first, return_inverse=True)
    distinct = torch.from_numpy(passages[rows]).T
    columns = torch.from_numpy(column_of)

    def scores(queries: np.ndarray) -> Tensor:
        products = torch.from_numpy(queries) @ distinct
        return products if len(rows) == len(passages) else products[:, columns]

    return scores


def search(scores: Scores, n_queries: int, passage_ids: Sequence[str], k: int) -> list[dict[str, float]]:
    """Return the score of the ``k`` best passages of each query, best first, by passage id.

    Of equal scores the larger id comes first, at the cut as well: the order of trec_eval and of mteb.

    Args:
        scores: of the queries and all passages.
        n_queries: number of queries.
        passage_ids: of each column of the scores.
        k: how many to find; fewer where there are fewer passages.
    """
    order = torch.tensor(sorted(range(len(passage_ids)), key=passage_ids.__getitem__, reverse=True))
    found = []
    for block in _blocks(n_queries, len(passage_ids)):
        values, columns = _best(scores(block)[:, order], min(k, len(passage_ids)))
        for positions, its_scores in zip(order[columns].tolist(), values.tolist(), strict=True):
            found.append({passage_ids[position]: score for position, score in zip(positions, its_scores, strict=True)})
    return found


def score_candidates(
    scores: Scores, candidates: Sequence[Sequence[str]], passage_ids: Sequence[str]
) -> list[dict[str, float]]:
    """Return the score of each query's candidates by passage id.

    Args:
        scores: of the queries and all passages.
        candidates: passage ids, of each query.
        passage_ids: of each column of the scores.
    """
    column_of = {passage_id: column for column, passage_id in enumerate(passage_ids)}
    found = []
    for block in _blocks(len(candidates), len(passage_ids)):
        for row, its_candidates in zip(scores(block), candidates[block], strict=True):
            values = row[[column_of[passage_id] for passage_id in its_candidates]].tolist()
            found.append(dict(zip(its_candidates, values, strict=True)))
    return found


def _blocks(n_queries: int, n_passages: int) -> Iterator[slice]:
    size = max(1, _SCORES_AT_ONCE // n_passages)
    return (slice(start, min(n_queries, start + size)) for start in range(0, n_queries, size))


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest scores of each row and their columns, equal ones by column."""
    values, columns = scores.topk(k, dim=1)
    # Which of several equal scores topk takes, and in which order, is not defined.
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    cut = (scores >= values[:, -1:]).sum(dim=1) > k
    if cut.any():
        ranked = scores[cut].sort(dim=1, descending=True, stable=True)
        values[cut], columns[cut] = ranked.values[:, :k], ranked.indices[:, :k]
    return values, columns
