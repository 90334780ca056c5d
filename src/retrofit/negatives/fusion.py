"""Several searches as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrofit.negatives.search import Candidates


def fuse(searches: Sequence[Candidates], k: int, constant: int = 60) -> Candidates:
    """Return the ``k`` best of several searches for the same queries by reciprocal rank fusion.

    A passage scores the sum of ``1 / (constant + rank)`` over the searches that found it (Cormack et al. 2009).

    Args:
        searches: candidates of the same queries.
        k: how many to keep.
        constant: how little the first ranks stand out.
    """
    passages = np.concatenate([search.passages for search in searches], axis=1)
    weights = np.concatenate(
        [np.tile(1 / (constant + 1 + np.arange(search.passages.shape[1])), (len(passages), 1)) for search in searches],
        axis=1,
    )
    queries, columns = np.nonzero(passages >= 0)
    width = int(passages.max(initial=0)) + 1
    keys, inverse = np.unique(queries * width + passages[queries, columns], return_inverse=True)
    sums = np.bincount(inverse, weights=weights[queries, columns], minlength=len(keys))
    of_query = keys // width
    order = np.lexsort((keys, -sums, of_query))
    ranks = np.arange(len(order)) - np.searchsorted(of_query[order], of_query[order])
    order, ranks = order[ranks < k], ranks[ranks < k]
    found = np.full((len(passages), k), -1, dtype=np.int64)
    scores = np.full((len(passages), k), -np.inf, dtype=np.float32)
    found[of_query[order], ranks] = keys[order] % width
    scores[of_query[order], ranks] = sums[order]
    return Candidates(found, scores)
