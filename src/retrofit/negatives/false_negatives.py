"""How often filters let a right answer through: hide a known positive and see whether it comes back as a negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from retrofit.negatives.choice import choose
from retrofit.negatives.embeddings import Embeddings
from retrofit.negatives.filters import Filter, Judged, apply
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.search import Candidates

COUNTS = (1, 4)
"""Numbers of negatives a query for which the rate is told."""


def hidden_positives(pool: MiningPool, seed: int) -> np.ndarray:
    """Return an answer to hide for every query with several, int64 ``[n, 2]``: query and passage, drawn by the seed.

    An answer that reads like another one of the same query is not hidden: it would be recognised by that.
    """
    generator = np.random.default_rng([seed, 5])
    shuffled = pool.answers[generator.permutation(len(pool.answers))]
    keys, counts = np.unique(shuffled[:, 0] * len(pool.passage_ids) + pool.alike[shuffled[:, 1]], return_counts=True)
    single = np.isin(shuffled[:, 0] * len(pool.passage_ids) + pool.alike[shuffled[:, 1]], keys[counts == 1])
    several = np.bincount(pool.answers[:, 0], minlength=len(pool.rows))[shuffled[:, 0]] > 1
    eligible = shuffled[single & several]
    hidden: np.ndarray = eligible[np.unique(eligible[:, 0], return_index=True)[1]]
    return hidden


def rates(
    pool: MiningPool,
    queries: Embeddings,
    passages: Embeddings,
    found: Candidates,
    settings: Mapping[str, Sequence[Filter]],
    seed: int,
) -> list[dict[str, Any]]:
    """Return how each setting treats positives that it does not know to be such, one row a setting.

    Args:
        pool: what was searched for in what.
        queries: embeddings of the pool's queries.
        passages: embeddings of its passages.
        found: candidates of all queries.
        settings: filters by name.
        seed: of what is hidden, and of nothing else.

    Returns:
        For each setting, of ``hidden`` positives: the share that is among the candidates (``found``), that the filters
        let through (``kept``), and that would be taken for one of the 1 or 4 best negatives (``false_1``, ``false_4``,
        with 95% Wilson intervals); and ``negatives``, the mean number of candidates left a query.
    """
    hidden = hidden_positives(pool, seed)
    asked, answers = hidden.T
    width = len(pool.passage_ids)
    known = np.setdiff1d(pool.known, asked * width + pool.alike[answers])
    candidates = Candidates(found.passages[asked], found.scores[asked])
    keys = asked[:, None] * width + pool.alike[candidates.passages]
    is_known = np.isin(keys, known) & (candidates.passages >= 0)
    judged = Judged(candidates, is_known, _scores_without(pool, queries, passages, hidden))
    back = candidates.passages == answers[:, None]
    rows = []
    for name, filters in settings.items():
        kept, _ = apply(filters, judged)
        row: dict[str, Any] = {
            "filters": name,
            "hidden": len(hidden),
            "found": _share(back.any(axis=1)),
            "kept": _share((back & kept).any(axis=1)),
        }
        for count in COUNTS:
            chosen = choose(candidates, kept, count, "top", pool.query_ids[asked], seed)
            false = (chosen == answers[:, None]).any(axis=1)
            interval = binomtest(int(false.sum()), len(false)).proportion_ci(method="wilson")
            row |= {
                f"false_{count}": _share(false),
                f"false_{count}_low": round(float(interval.low), 4),
                f"false_{count}_high": round(float(interval.high), 4),
            }
        row["negatives"] = round(float(kept.sum(axis=1).mean()), 2)
        rows.append(row)
    return rows


def _scores_without(pool: MiningPool, queries: Embeddings, passages: Embeddings, hidden: np.ndarray) -> np.ndarray:
    """Return each query's similarity to the least similar of its other positives, float32 ``[hidden]``."""
    asked, answers = pool.answers.T
    place = np.searchsorted(hidden[:, 0], asked)
    place[place == len(hidden)] = 0
    others = (hidden[place, 0] == asked) & (hidden[place, 1] != answers)
    lowest = np.full(len(hidden), np.inf, dtype=np.float32)
    similar = np.einsum("nd,nd->n", queries.rows(asked[others]), passages.rows(answers[others]))
    np.minimum.at(lowest, place[others], similar)
    return lowest


def _share(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
