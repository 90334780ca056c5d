"""Exact search over all passages of a task, with ties broken as trec_eval breaks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

_SCORES_AT_ONCE = 2**24

Scores = Callable[[slice], Tensor]
"""Scores of some of the queries: float32 ``[queries of the slice, passages]``."""


def inner_products(queries: np.ndarray, passages: np.ndarray) -> Scores:
    """Return the scores of queries ``[queries, dimension]`` and passages ``[passages, dimension]``, float32.

    Passages with the same vector have the same score to the bit: in a matrix product of all of them the last digit may
    depend on the column, and would decide which of two equal passages comes first.
    """
    row_of = {vector.tobytes(): row for row, vector in reversed(list(enumerate(passages)))}
    first = np.array([row_of[vector.tobytes()] for vector in passages], dtype=np.int64)
    rows, column_of = np.unique(first, return_inverse=True)
    distinct = torch.from_numpy(passages[rows]).T
    columns = torch.from_numpy(column_of)

    def scores(part: slice) -> Tensor:
        products = torch.from_numpy(queries[part]) @ distinct
        return products if len(rows) == len(passages) else products[:, columns]

    return scores


def search(scores: Scores, n_queries: int, passage_ids: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` best passages of each query, best first.

    Of equal scores the larger id comes first, at the cut as well: the order of trec_eval and of mteb.

    Args:
        scores: of the queries and all passages.
        n_queries: number of queries.
        passage_ids: of each column of the scores.
        k: how many to find; fewer where there are fewer passages.

    Returns:
        Positions in ``passage_ids``, int64 ``[n_queries, k]``, and scores, float32 ``[n_queries, k]``.
    """
    order = torch.tensor(sorted(range(len(passage_ids)), key=passage_ids.__getitem__, reverse=True))
    block = max(1, _SCORES_AT_ONCE // len(passage_ids))
    found = []
    for start in range(0, n_queries, block):
        values, columns = _best(scores(slice(start, start + block))[:, order], min(k, len(passage_ids)))
        found.append((order[columns].numpy(), values.numpy()))
    positions, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return positions, values


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
