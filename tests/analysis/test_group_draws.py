"""Draws of groups: against scipy where every item is one, and by how often they err where groups move together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retrofit.analysis.group_draws import GroupDraws
from retrofit.analysis.significance import FLIPS, RESAMPLES, percentile_interval, two_sided_p


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def alone(items: int) -> np.ndarray:
    return np.array([f"item {number}" for number in range(items)], dtype=object)


def test_an_interval_of_items_that_are_by_themselves_is_scipys() -> None:
    values = generator(1).gamma(2, size=(80, 1))
    low, high = percentile_interval(GroupDraws("s").resampled_means(values, alone(80))[:, 0])
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=RESAMPLES, method="percentile", rng=generator(3)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.08 * width)
    assert high == pytest.approx(theirs.high, abs=0.08 * width)


def test_models_are_resampled_alike() -> None:
    values = generator(1).uniform(size=(50, 1))
    means = GroupDraws("s").resampled_means(np.concatenate([values, values + 0.1], axis=1), alone(50))
    assert np.ptp(means[:, 1] - means[:, 0]) < 1e-9  # the paired difference is the same for every item


def test_p_of_few_groups_is_that_of_all_signs_of_their_sums() -> None:
    sums = np.array([0.3, -0.1, 0.4, 0.2, 0.25, -0.05, 0.1, 0.3])
    exact = stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    differences = np.concatenate([sums - 0.5, np.full(8, 0.5)])[:, None]  # two items a group
    groups = np.concatenate([alone(8), alone(8)])
    exchanged = GroupDraws("s").exchanged_means(differences, groups)[:, 0]
    found = two_sided_p(differences.mean(), exchanged)
    assert found == pytest.approx(exact, abs=3 * np.sqrt(exact / FLIPS) + 1 / FLIPS)


@given(st.permutations(range(12)), st.lists(st.sampled_from("abcd"), min_size=12, max_size=12))
def test_draws_are_of_a_groups_name_in_whatever_order_and_company(order: list[int], names: list[str]) -> None:
    values, groups = generator(4).normal(size=(12, 2)), np.array(names, dtype=object)
    draws = GroupDraws("s")
    draws.resampled_means(generator(5).normal(size=(3, 1)), np.array(["d", "x", "y"], dtype=object))
    for means in ("resampled_means", "exchanged_means"):
        found = getattr(draws, means)(values[order], groups[order])
        np.testing.assert_allclose(found, getattr(GroupDraws("s"), means)(values, groups), atol=1e-12)
        assert np.abs(found - getattr(GroupDraws("t"), means)(values, groups)).max() > 1e-3 or len(set(names)) == 1


def languages(seed: int, gain: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Paired differences of the same 40 questions in 10 languages: most of it is shared."""
    draws = generator(seed)
    shared = draws.normal(gain, 1, (40, 1))
    return [shared + draws.normal(0, 0.5, (40, 1)) for _ in range(10)], alone(40)


def test_what_languages_share_is_not_counted_ten_times() -> None:
    small, covered = 0, 0
    for seed in range(200):
        cells, questions = languages(seed)
        suite = GroupDraws(f"suite {seed}")
        mean = float(np.mean([cell.mean() for cell in cells]))
        exchanged = np.mean([suite.exchanged_means(cell, questions)[:, 0] for cell in cells], axis=0)
        resampled = np.mean([suite.resampled_means(cell, questions)[:, 0] for cell in cells], axis=0)
        small += two_sided_p(mean, exchanged) < 0.05
        low, high = percentile_interval(resampled)
        covered += low <= 0 <= high
    assert 0.015 <= small / 200 <= 0.10  # 5% and three standard errors; one by one it would be half of them
    assert covered / 200 >= 0.88


def test_a_clear_difference_of_groups_is_found() -> None:
    found = []
    for seed in range(30):
        cells, questions = languages(seed, gain=0.8)
        suite = GroupDraws("suite")
        exchanged = np.mean([suite.exchanged_means(cell, questions)[:, 0] for cell in cells], axis=0)
        found.append(two_sided_p(float(np.mean([cell.mean() for cell in cells])), exchanged) < 0.05)
    assert np.mean(found) > 0.9


def test_a_single_group_tells_nothing() -> None:
    values, one = generator(1).normal(1, 1, (20, 1)), np.full(20, "g", dtype=object)
    draws = GroupDraws("s")
    assert np.ptp(draws.resampled_means(values, one)) < 1e-12
    assert two_sided_p(values.mean(), draws.exchanged_means(values, one)[:, 0]) == 1
