"""Whether models differ: paired bootstrap, paired randomisation, Holm's correction and effect sizes.

A cell is what one task holds in one pair of languages; its items are drawn anew, or exchanged between models, within
the cell and for all models alike: queries and sentences by groups (:mod:`retrofit.analysis.group_draws`), pairs of an
STS task one by one. What a cell gives is linear in its draws, so a mean over cells has as its draws the same mean of
theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

# scipy.stats.bootstrap and permutation_test know no strata, and gather every resample of every model: on a cell of
# 1,000 items and 6 models they take 4 and 60 times as long as what is here. Tests hold this against both.

CELL = ["suite", "task", "query_language", "document_language"]
RESAMPLES = 2_000
FLIPS = 10_000
SIGNIFICANT = 0.05
"""A corrected p-value below it is what "gained", "lost" and "better" need."""

_NUMBERS_AT_ONCE = 2**20  # of a matrix of draws: 8 MB, which a core's cache nearly holds
_FLIPPED_TOGETHER = 4  # rows of a chunk are a multiple: the generator cuts four signs from a word, and wastes the rest


def draw_counts(resamples: int, items: int, generator: np.random.Generator) -> np.ndarray:
    """Return how often each item is among as many drawn with replacement, int64 ``[resamples, items]``."""
    drawn = generator.integers(items, size=(resamples, items))
    drawn += np.arange(resamples)[:, None] * items
    counts: np.ndarray = np.bincount(drawn.ravel(), minlength=resamples * items)
    return counts.reshape(resamples, items)


def flipped_sums(differences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the sums of differences under random signs, float64 ``[FLIPS, columns]``; columns have the same signs.

    Args:
        differences: float ``[items, columns]``: paired differences between two models.
        generator: draws the signs.
    """
    parts = [
        (generator.integers(0, 2, size=(rows, len(differences)), dtype=np.int8) * 2 - 1).astype(np.float64)
        @ differences
        for rows in _rows(FLIPS, len(differences))
    ]
    return np.concatenate(parts)


def spearman(values: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each column with ``gold``, float64 ``[columns]``.

    It is 0 where either is constant, which says nothing about order.

    Args:
        values: float ``[items, columns]``.
        gold: float ``[items]``.
    """
    ranks, gold_ranks = rankdata(values, axis=0), rankdata(gold)
    middle, items = (len(gold) + 1) / 2, len(gold)
    moments = [(ranks - middle).T @ (gold_ranks - middle), ((ranks - middle) ** 2).sum(axis=0)]
    return _ratio(moments[0] / items, moments[1] / items, ((gold_ranks - middle) ** 2).mean())


def bootstrap_correlations(values: np.ndarray, gold: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return Spearman's correlations of resampled items, float64 ``[RESAMPLES, columns]``.

    Every resample is ranked anew, ties by their mean rank.

    Args:
        values: float ``[items, columns]``: how alike each model finds the two texts of a pair.
        gold: float ``[items]``: how alike people find them.
        generator: draws the items; all columns are resampled alike.
    """
    parts = []
    for rows in _rows(RESAMPLES, len(gold)):
        counts = draw_counts(rows, len(gold), generator)
        of_gold = _centred_ranks(gold, counts)
        spread = (counts * of_gold**2).sum(axis=1)
        columns = []
        for column in values.T:
            ranks = _centred_ranks(column, counts)
            weighted = counts * ranks
            columns.append(_ratio((weighted * of_gold).sum(axis=1), (weighted * ranks).sum(axis=1), spread))
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def swapped_correlations(
    values: np.ndarray, reference: np.ndarray, gold: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return differences between two models' correlations where pairs are swapped at random, ``[FLIPS, columns]``.

    What is swapped is the rank that each model gives a pair: cosines of two models lie on scales of their own, and
    mixed they would order nothing.

    Args:
        values: float ``[items, columns]``: how alike models find the two texts of a pair.
        reference: likewise, of what each column is compared with.
        gold: float ``[items]``: how alike people find them.
        generator: draws which pairs are swapped; all columns have the same swapped.
    """
    items = len(gold)
    ours, theirs = (rankdata(side, axis=0) - (items + 1) / 2 for side in (values, reference))
    truth = rankdata(gold) - (items + 1) / 2
    moved = theirs - ours
    changes = np.concatenate([moved, theirs**2 - ours**2, moved * truth[:, None]], axis=1)
    total = changes.sum(axis=0)
    # A pair is swapped where its sign is plus: half of all changes and of the signed ones is the sum of those.
    mean, square, product = np.split((total + flipped_sums(changes, generator)) / 2 / items, 3, axis=1)
    swapped = []
    for side, sign in ((ours, 1), (theirs, -1)):
        variance = (side**2).mean(axis=0) + sign * square - mean**2
        swapped.append(_ratio((side.T @ truth) / items + sign * product, variance, (truth**2).mean()))
    differences: np.ndarray = swapped[0] - swapped[1]
    return differences


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of bootstrap draws, float ``[RESAMPLES]``."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def two_sided_p(observed: float, draws: np.ndarray) -> float:
    """Return how often draws without a difference, float ``[FLIPS]``, are as large; the observed one counts as one."""
    beyond = int((np.abs(draws) >= abs(observed) - 1e-12).sum())
    return (beyond + 1) / (len(draws) + 1)


def draw_seeds(seeds: int, generator: np.random.Generator) -> np.ndarray:
    """Return which seeds each resample has, int64 ``[RESAMPLES, seeds]``."""
    return generator.integers(seeds, size=(RESAMPLES, seeds))


def mean_of_seeds(draws: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds of each resample, float ``[RESAMPLES]``, of draws ``[RESAMPLES, seeds]``."""
    means: np.ndarray = np.take_along_axis(draws, seeds, axis=1).mean(axis=1)
    return means


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method (1979), in their order."""
    corrected = [0.0] * len(p_values)
    rising = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        rising = max(rising, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = rising
    return corrected


def cohens_d(mean: float, mean_square: float) -> float:
    """Return Cohen's d of paired differences (d_z): their mean over their standard deviation; 0 where all are 0.

    Args:
        mean: of the differences.
        mean_square: of the differences; weighted as the mean is.
    """
    deviation = np.sqrt(max(mean_square - mean**2, 0.0))
    return 0.0 if mean == 0 else float(mean / deviation) if deviation > 1e-12 else float(np.copysign(np.inf, mean))


def cohens_q(first: float, second: float) -> float:
    """Return Cohen's q of two correlations: the difference of their Fisher transforms."""
    most = 1 - 1e-12
    transformed = np.arctanh(np.clip([first, second], -most, most))
    return float(transformed[0] - transformed[1])


def cell_weights(tasks: Sequence[str]) -> np.ndarray:
    """Return what each cell of a suite counts, float64 ``[cells]``: a mean over tasks, of means over language pairs.

    Args:
        tasks: of each cell.
    """
    names, of_cell, cells = np.unique(np.asarray(tasks, dtype=object), return_inverse=True, return_counts=True)
    weights: np.ndarray = 1 / cells[of_cell] / len(names)
    return weights


def query_weights(frame: pd.DataFrame) -> np.ndarray:
    """Return what each query of a suite counts, float64 ``[queries]``: its cell's weight over the cell's queries."""
    cells = frame.groupby(CELL, sort=False)
    of_cell = cell_weights(frame.drop_duplicates(CELL)["task"].tolist())
    weights: np.ndarray = of_cell[cells.ngroup().to_numpy()] / cells["task"].transform("size").to_numpy()
    return weights


def weighted_mean(frame: pd.DataFrame, values: np.ndarray) -> float:
    """Return the mean over tasks of the mean over the task's language pairs of the mean over their queries."""
    return float(values @ query_weights(frame))


def _rows(draws: int, items: int) -> Iterator[int]:
    """Yield the numbers of draws that are made at once."""
    most = max(1, _NUMBERS_AT_ONCE // items // _FLIPPED_TOGETHER) * _FLIPPED_TOGETHER
    for start in range(0, draws, most):
        yield min(most, draws - start)


def _centred_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the ranks, less their mean, of items that stand ``counts`` times, float64 ``[resamples, items]``."""
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) == len(values):
        order = np.argsort(place)
        alike = counts[:, order]
    else:
        order = np.argsort(place, kind="stable")
        starts = np.searchsorted(place[order], np.arange(len(distinct)))
        alike = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(alike, axis=1) - (alike - 1) / 2 - (len(values) + 1) / 2
    centred: np.ndarray = ranks[:, place]
    return centred


def _ratio(product: np.ndarray, square: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    """Return correlations from a mean product and two mean squares; 0 where one of these is 0."""
    scale = np.sqrt(np.maximum(square * other, 0))
    ratios: np.ndarray = np.divide(product, scale, out=np.zeros_like(product), where=scale > 1e-9)
    return ratios
