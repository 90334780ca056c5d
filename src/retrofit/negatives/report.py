"""What a mining report shows of the negatives that were taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrofit.negatives.filters import Judged
from retrofit.negatives.pool import MiningPool

_PERCENTILES = (5, 25, 50, 75, 95)
_QUERIES_A_BLOCK = 20_000
_EXAMPLES = 10


def distributions(judged: Judged, chosen: np.ndarray) -> dict[str, Any]:
    """Return ranks and scores of what was chosen, and how far below the positive it lies, as percentiles.

    Args:
        judged: the candidates.
        chosen: int64 ``[queries, count]``, positions of passages, -1 for none.
    """
    taken = []
    for start in range(0, len(chosen), _QUERIES_A_BLOCK):
        part = slice(start, start + _QUERIES_A_BLOCK)
        wanted = np.where(chosen[part] < 0, -2, chosen[part])
        queries, ranks, _ = np.nonzero(judged.candidates.passages[part][:, :, None] == wanted[:, None, :])
        taken.append(np.stack([queries + start, ranks]))
    queries, ranks = np.concatenate(taken, axis=1) if taken else np.empty((2, 0), dtype=np.int64)
    scores = judged.candidates.scores[queries, ranks]
    figures = {"rank": ranks + 1, "score": scores, "below_positive": judged.positive_scores[queries] - scores}
    figures = {name: values[np.isfinite(values)] for name, values in figures.items()}
    return {
        "chosen": len(queries),
        **{
            name: dict(zip(map(str, _PERCENTILES), np.percentile(values, _PERCENTILES).round(4).tolist(), strict=True))
            for name, values in figures.items()
            if len(values)
        },
    }


def examples(pool: MiningPool, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Return queries to look at, spread over the pool, each with a positive and its first negative."""
    rows = np.flatnonzero(chosen[:, 0] >= 0)
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, _EXAMPLES).round().astype(np.int64))] if len(rows) else rows
    return [
        {"query": pair["query"], "positive": pair["positives"][0], "negative": negative}
        for pair, negative in zip(pool.reader.rows(pool.rows[shown]), pool.passage_texts(chosen[shown, 0]), strict=True)
    ]
