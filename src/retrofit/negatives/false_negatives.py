"""How often filters let a right answer through: hide a known positive and see whether it comes back as a negative."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from retrofit.negatives.choice import choose
from retrofit.negatives.filters import apply
from retrofit.negatives.mining import Found, Miner, filters_of
from retrofit.negatives.pool import MiningPool
from retrofit.negatives.search import Candidates

COUNTS = (1, 4)
"""Numbers of negatives a query for which the rate is told."""

NO_FILTERS = {"first_rank": 1, **dict.fromkeys(("max_score", "margin", "share", "near_duplicates", "veto"))}
"""Settings of ``negatives.mined`` with which known positives alone are rejected."""


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


def rates(miner: Miner, found: Found, tried: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return how settings treat positives that they do not know to be such, one row a setting.

    Args:
        miner: of the pool.
        found: candidates of all queries.
        tried: filters, as changes to the settings of a miner that rejects known positives alone.
        seed: of what is hidden, and of nothing else.

    Returns:
        For each setting, of ``hidden`` positives: the share that is among the candidates (``found``), that the filters
        let through (``kept``), and that would be taken for one of the 1 or 4 best negatives (``false_1``, ``false_4``,
        with 95% Wilson intervals); and ``negatives``, the mean number of candidates left a query.
    """
    pool = miner.pool
    hidden = hidden_positives(pool, seed)
    asked, answers = hidden.T
    width = len(pool.passage_ids)
    known = np.setdiff1d(pool.known, asked * width + pool.alike[answers])
    is_hidden = np.isin(pool.answers[:, 0] * width + pool.answers[:, 1], asked * width + answers)
    rows = []
    for changes in tried:
        settings = {**miner.settings, **NO_FILTERS, **changes}
        judged = dataclasses.replace(miner, settings=settings).judge(found, known, pool.answers[~is_hidden])
        kept, _ = apply(filters_of(settings), judged)
        kept, candidates = kept[asked], Candidates(*(part[asked] for part in _parts(found.candidates)))
        back = candidates.passages == answers[:, None]
        row: dict[str, Any] = {
            "filters": named(changes),
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


def named(changes: Mapping[str, Any]) -> str:
    """Return what a table calls filters given as changes of settings."""
    shown = {name: value["margin"] if name == "veto" else value for name, value in changes.items()}
    return ", ".join(f"{name} {value:g}" for name, value in shown.items()) or "none"


def _parts(candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    return candidates.passages, candidates.scores


def _share(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
