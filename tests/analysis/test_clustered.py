"""The test over seeds and groups of queries: against scipy where it is a t-test, and by how often it errs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from retrofit.analysis.clustered import QUERY_GROUP, estimate
from retrofit.analysis.significance import query_weights


def queries(languages: int, per_language: int, shared: bool = False) -> pd.DataFrame:
    """Queries of one task; shared: the n-th of each language belong together."""
    rows = [
        ("s", "t", f"l{language}", f"l{language}", f"{number}" if shared else f"{language}-{number}")
        for language in range(languages)
        for number in range(per_language)
    ]
    return pd.DataFrame(rows, columns=["suite", "task", "query_language", "document_language", QUERY_GROUP])


def test_one_seed_of_queries_by_themselves_is_a_t_test() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, (1, 40))
    found, theirs = estimate(values, queries(1, 40)), stats.ttest_1samp(values[0], 0)
    assert (found.mean, found.p) == pytest.approx((values.mean(), theirs.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_queries_that_are_all_alike_leave_a_t_test_over_seeds() -> None:
    of_seed = np.array([0.01, 0.03, 0.02])
    found, theirs = estimate(np.repeat(of_seed[:, None], 50, axis=1), queries(1, 50)), stats.ttest_1samp(of_seed, 0)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_the_variances_are_those_of_the_formula() -> None:
    frame = queries(3, 8, shared=True).sample(17, random_state=0, ignore_index=True)
    values = np.random.default_rng(1).normal(0.2, 1, (3, len(frame)))
    weights, of_query = query_weights(frame), values.mean(axis=0)
    sums: dict[str, float] = {}
    for place, row in frame.iterrows():
        cell = np.flatnonzero(frame["query_language"] == row["query_language"])
        of_cell = sum(of_query[other] for other in cell) / len(cell)
        group = row[QUERY_GROUP]
        sums[group] = sums.get(group, 0) + weights[place] * (of_query[place] - of_cell)
    means = [sum(weights[q] * seed[q] for q in range(len(frame))) for seed in values]
    of_seeds = sum((mean - sum(means) / 3) ** 2 for mean in means) / 2 / 3
    of_groups = sum(value**2 for value in sums.values()) * len(sums) / (len(sums) - 1)
    degrees = (of_seeds + of_groups) ** 2 / (of_seeds**2 / 2 + of_groups**2 / (len(sums) - 1))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(of_seeds + of_groups)
    mean, found = np.mean(means), estimate(values, frame)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


@pytest.mark.parametrize("of_seed", [0.0, 1.0, 2.0])
def test_translations_of_the_same_texts_and_few_seeds_do_not_make_it_sure_of_itself(of_seed: float) -> None:
    frame, generator = queries(6, 24, shared=True), np.random.default_rng(0)
    by_itself = frame.assign(**{QUERY_GROUP: [str(place) for place in range(len(frame))]})
    grouped, apart = [], []
    for _ in range(200):
        texts = np.tile(generator.normal(0, 1, 24), 6)  # a text's difference is half that of all its translations
        values = texts + generator.normal(0, 1, 6 * 24) + generator.normal(0, 0.5, (3, 6 * 24))
        error = np.sqrt(values.mean(axis=0).var() / 24)
        values = values + of_seed * error * generator.normal(0, 1, (3, 1))
        grouped.append(estimate(values, frame).p < 0.05)
        apart.append(estimate(values, by_itself).p < 0.05)
    assert np.mean(grouped) < 0.08
    assert np.mean(apart) > 2 * np.mean(grouped) or of_seed


def test_nothing_is_told_by_a_single_group_and_all_by_differences_that_are_equal() -> None:
    alone = estimate(np.array([[0.1, 0.2]]), queries(1, 2).assign(**{QUERY_GROUP: "one"}))
    assert alone.p == 1
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    nothing, equal = (estimate(np.full((3, 10), value), queries(1, 10)) for value in (0.0, 0.1))
    assert (nothing.low, nothing.high, nothing.p) == (0, 0, 1)
    assert (equal.low, equal.high, equal.p) == pytest.approx((0.1, 0.1, 0))
