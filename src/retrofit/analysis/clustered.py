"""Whether runs differ, where what is measured twice is not counted twice: a t-test over seeds and groups of queries.

What is held out asks the same of an integration in 31 languages, and several questions of one paragraph: such queries
rise and fall together, so the unit is their group, not the query. And what one training gains another does not: seeds
are drawn as well. The two variances add up, and their degrees of freedom by Satterthwaite's rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from retrofit.analysis.significance import CELL, query_weights

QUERY_GROUP = "query_group"
"""The column that says which queries of a suite belong together."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of differences.

    Attributes:
        mean: over seeds, of the weighted mean over queries.
        low: lower end of its 95% interval; not a number where a single group was asked.
        high: upper end.
        p: two-sided, of no difference.
        seeds_up: with how many seeds the mean is above 0.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds_up: int


def estimate(differences: np.ndarray, frame: pd.DataFrame) -> Estimate:
    r"""Return the mean of differences of a suite, and how sure it is.

    With :math:`w_q` the weight of a query, :math:`d_{sq}` its difference with seed s, and :math:`\bar d_q` the mean of
    these over S seeds, less the mean of the query's task and languages,

    .. math:: V = \frac{1}{S} \mathrm{var}_s \Big(\sum_q w_q d_{sq}\Big) +
        \frac{G}{G - 1} \sum_g \Big(\sum_{q \in g} w_q \bar d_q\Big)^2

    over G groups: the variance of a mean over random seeds, and the one that is robust to clusters (Cameron and Miller
    2015, A Practitioner's Guide to Cluster-Robust Inference). The noise of single queries is in both, so V errs on the
    large side. Degrees of freedom are Satterthwaite's (1946). With one seed, nothing is known of others: the first term
    is left out.

    Args:
        differences: float ``[seeds, queries]``.
        frame: a row for each query: its cell (``CELL``) and its group (``QUERY_GROUP``).
    """
    weights = query_weights(frame)
    by_seed = differences @ weights
    mean, seeds, seeds_up = float(by_seed.mean()), len(differences), int((by_seed > 0).sum())
    of_query = differences.mean(axis=0)
    cell_means = pd.Series(of_query).groupby(frame.groupby(CELL).ngroup().to_numpy()).transform("mean").to_numpy()
    sums = pd.Series(weights * (of_query - cell_means)).groupby(frame[QUERY_GROUP].to_numpy()).sum().to_numpy()
    groups = len(sums)
    if groups < 2:
        return Estimate(mean, np.nan, np.nan, 1.0, seeds_up)
    variances = [(float((sums**2).sum()) * groups / (groups - 1), groups - 1)]
    if seeds > 1:
        variances.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in variances)
    error = float(np.sqrt(variance))
    if error < 1e-12 * max(1.0, abs(mean)):  # equal in every query and seed: only digits are left
        return Estimate(mean, mean, mean, float(abs(mean) < 1e-12), seeds_up)
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in variances)
    half = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, degrees))
    p = float(2 * stats.t.sf(abs(mean) / error, degrees))
    return Estimate(mean, mean - half, mean + half, p, seeds_up)
