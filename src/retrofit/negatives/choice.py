"""Which of the candidates that are left become negatives, and what fills the gaps."""

from __future__ import annotations

from typing import Literal

import numpy as np

from retrofit.negatives.search import Candidates

Sampling = Literal["top", "random", "weighted"]


def choose(
    candidates: Candidates,
    kept: np.ndarray,
    count: int,
    sampling: Sampling,
    query_ids: np.ndarray,
    seed: int,
    temperature: float = 0.05,
) -> np.ndarray:
    """Return up to ``count`` negatives for each query, int64 ``[queries, count]``, -1 where there are fewer.

    The draw depends on the query's identifier and the seed, not on where the query stands.

    Args:
        candidates: of each query.
        kept: bool ``[queries, k]``, those to choose among.
        count: how many.
        sampling: ``top``: those that score highest; ``random``; ``weighted``: drawn without replacement with
            probabilities proportional to ``exp(score / temperature)``, by adding Gumbel noise (Kool et al. 2019).
        query_ids: uint64 ``[queries]``.
        seed: of the draw.
        temperature: of ``weighted``.
    """
    keys = candidates.scores.astype(np.float64)
    if sampling != "top":
        noise = _uniform(query_ids, candidates.passages.shape[1], seed)
        keys = noise if sampling == "random" else keys / temperature - np.log(-np.log(noise))
    keys = np.where(kept, keys, -np.inf)
    order = np.argsort(-keys, axis=1, kind="stable")[:, :count]
    chosen: np.ndarray = np.where(
        np.take_along_axis(kept, order, 1), np.take_along_axis(candidates.passages, order, 1), -1
    )
    return np.pad(chosen, ((0, 0), (0, count - chosen.shape[1])), constant_values=-1)


def fill(
    chosen: np.ndarray, pool: np.ndarray, positives: list[np.ndarray], query_ids: np.ndarray, seed: int, tries: int = 20
) -> tuple[np.ndarray, int]:
    """Return negatives with their gaps filled by passages drawn at random that answer no query they are given to.

    Args:
        chosen: int64 ``[queries, count]``, -1 in the gaps.
        pool: int64, positions of passages to draw from.
        positives: int64 positions of the known positives of each query.
        query_ids: uint64 ``[queries]``.
        seed: of the draw.
        tries: draws after which a gap stays.

    Returns:
        The negatives, -1 where nothing was found, and how many gaps were filled.
    """
    filled, gaps = chosen.copy(), 0
    for row in np.flatnonzero((chosen < 0).any(axis=1)):
        generator = np.random.default_rng([seed, int(query_ids[row])])
        taken = {*positives[row].tolist(), *chosen[row].tolist()}
        places = np.flatnonzero(chosen[row] < 0)
        drawn = [place for place in generator.choice(pool, tries * len(places)).tolist() if place not in taken]
        for place, passage in zip(places, dict.fromkeys(drawn), strict=False):
            filled[row, place] = passage
            gaps += 1
    return filled, gaps


def _uniform(query_ids: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Return numbers strictly between 0 and 1, float64 ``[queries, width]``, that depend on query id and seed alone."""
    streams = query_ids[:, None] + np.arange(width, dtype=np.uint64)[None, :] * np.uint64(0x9E3779B97F4A7C15)
    values = streams ^ np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    uniform: np.ndarray = ((values >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return uniform
