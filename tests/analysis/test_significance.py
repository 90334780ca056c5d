"""The statistics against scipy, against values worked out by hand, and against how often they err on made up data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retrofit.analysis.significance import (
    FLIPS,
    RESAMPLES,
    bootstrap_correlations,
    cell_weights,
    cohens_d,
    cohens_q,
    draw_counts,
    draw_seeds,
    flipped_sums,
    holm,
    mean_of_seeds,
    query_weights,
    spearman,
    swapped_correlations,
    two_sided_p,
    weighted_mean,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(1, 40), st.integers(1, 30))
def test_every_resample_has_as_many_items(resamples: int, items: int) -> None:
    counts = draw_counts(resamples, items, generator())
    assert counts.shape == (resamples, items)
    assert (counts.sum(axis=1) == items).all()
    assert (counts >= 0).all()


def test_items_are_drawn_alike() -> None:
    counts = draw_counts(20_000, 5, generator())
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.03)
    assert counts.var(axis=0) == pytest.approx(0.8, abs=0.03)  # of a binomial of 5 draws at 1/5


@pytest.mark.parametrize("tied", [False, True])
def test_correlations_are_scipys(tied: bool) -> None:
    gold = generator(0).integers(0, 4, 60).astype(float) if tied else generator(0).uniform(size=60)
    values = np.stack([gold + generator(1).normal(0, 1, 60), generator(2).integers(0, 5, 60)], axis=1)
    expected = [stats.spearmanr(column, gold).statistic for column in values.T]
    assert spearman(values, gold) == pytest.approx(expected)


@pytest.mark.parametrize("tied", [False, True])
def test_every_resample_of_a_correlation_is_ranked_anew(tied: bool) -> None:
    gold = generator(0).integers(0, 4, 25).astype(float) if tied else generator(0).uniform(size=25)
    values = np.stack([gold + generator(1).normal(0, 1, 25), generator(2).uniform(size=25)], axis=1)
    found = bootstrap_correlations(values, gold, generator(3))
    assert found.shape == (RESAMPLES, 2)
    counts = draw_counts(RESAMPLES, 25, generator(3))
    for draw in range(0, RESAMPLES, 100):
        drawn = np.repeat(np.arange(25), counts[draw])
        expected = [stats.spearmanr(values[drawn, column], gold[drawn]).statistic for column in range(2)]
        assert found[draw] == pytest.approx(expected)


def test_a_constant_side_has_no_correlation() -> None:
    gold = np.arange(10.0)
    assert spearman(np.ones((10, 1)), gold).tolist() == [0]
    assert not bootstrap_correlations(np.ones((10, 1)), gold, generator()).any()


def test_p_of_few_differences_is_that_of_all_signs() -> None:
    differences = np.array([0.3, -0.1, 0.4, 0.2, 0.25, -0.05, 0.1, 0.3])
    exact = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    found = two_sided_p(differences.sum(), flipped_sums(differences[:, None], generator())[:, 0])
    assert found == pytest.approx(exact, abs=3 * np.sqrt(exact / FLIPS) + 1 / FLIPS)


def test_swapped_correlations_are_those_of_swapped_ranks() -> None:
    gold = generator(0).integers(0, 6, 40).astype(float)
    ours, theirs = gold + generator(1).normal(0, 2, 40), 10 * gold + generator(2).normal(0, 30, 40)
    found = swapped_correlations(ours[:, None], theirs[:, None], gold, generator(3))
    signs = generator(3).integers(0, 2, size=(FLIPS, 40), dtype=np.int8) * 2 - 1
    ranks = stats.rankdata(ours), stats.rankdata(theirs)
    for draw in range(0, FLIPS, 500):
        swapped = signs[draw] > 0
        first, second = np.where(swapped, ranks[1], ranks[0]), np.where(swapped, ranks[0], ranks[1])
        truth = stats.rankdata(gold)
        expected = np.corrcoef(first, truth)[0, 1] - np.corrcoef(second, truth)[0, 1]
        assert found[draw, 0] == pytest.approx(expected)


def cells(seed: int, gain: float) -> list[np.ndarray]:
    """Paired differences of three cells of different sizes and spreads, of skewed items."""
    draws = generator(seed)
    return [gain + (draws.choice([0, -0.5, 0.5, 1, -1], size=(items, 1)) * spread)
            for items, spread in ((20, 1), (40, 0.3), (60, 0.5))]  # fmt: skip


def p_of_cells(seed: int, gain: float) -> float:
    its = cells(seed, gain)
    draws = sum(flipped_sums(cell, generator(seed))[:, 0] / len(cell) / 3 for cell in its)
    return two_sided_p(float(sum(cell.mean() / 3 for cell in its)), np.asarray(draws))


def test_means_that_do_not_differ_are_told_apart_once_in_twenty() -> None:
    found = [p_of_cells(seed, 0.0) < 0.05 for seed in range(400)]
    assert 0.025 <= np.mean(found) <= 0.08  # 5% and three standard errors


def test_a_clear_difference_is_found() -> None:
    assert np.mean([p_of_cells(seed, 0.2) < 0.05 for seed in range(100)]) > 0.9


def p_of_correlations(seed: int, noise: float) -> float:
    draws = generator(seed)
    gold = draws.uniform(0, 5, 80)
    # Two models whose cosines lie on scales of their own.
    ours = 0.9 + 0.01 * (gold + draws.normal(0, noise, 80))
    theirs = gold + draws.normal(0, 2, 80)
    values = np.stack([ours, theirs], axis=1)
    found = spearman(values, gold)
    exchanged = swapped_correlations(values[:, :1], values[:, 1:], gold, draws)[:, 0]
    return two_sided_p(float(found[0] - found[1]), exchanged)


def test_correlations_that_do_not_differ_are_told_apart_once_in_twenty() -> None:
    found = [p_of_correlations(seed, 2.0) < 0.05 for seed in range(400)]
    assert 0.02 <= np.mean(found) <= 0.083


def test_a_clear_difference_of_correlations_is_found() -> None:
    assert np.mean([p_of_correlations(seed, 0.8) < 0.05 for seed in range(100)]) > 0.9


def test_seeds_are_drawn_too() -> None:
    draws = np.tile([0.0, 1.0, 2.0], (RESAMPLES, 1))
    means = mean_of_seeds(draws, draw_seeds(3, generator()))
    assert means.std() == pytest.approx(np.sqrt(2 / 3 / 3), abs=0.03)
    assert (mean_of_seeds(draws[:, :1], draw_seeds(1, generator())) == 0).all()


def test_effect_sizes() -> None:
    differences = np.array([0.1, 0.3, -0.1, 0.5])
    found = cohens_d(differences.mean(), (differences**2).mean())
    assert found == pytest.approx(differences.mean() / differences.std())
    assert cohens_d(0.0, 0.0) == 0
    assert cohens_d(-0.2, 0.04) == -np.inf
    assert cohens_q(0.8, 0.5) == pytest.approx(1.0986123 - 0.5493061)
    assert np.isfinite(cohens_q(1.0, -1.0))


def test_holm_by_hand() -> None:
    # Four of them: 4 × .005, 3 × .01, then 2 × .03; .04 may not be smaller than what comes before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def naive_holm(p_values: list[float]) -> list[Any]:
    ordered = sorted(p_values)
    steps = [min(1.0, (len(ordered) - k) * p) for k, p in enumerate(ordered)]
    return [max(steps[: k + 1]) for k in range(len(steps))]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_textbooks(p_values: list[float]) -> None:
    assert sorted(holm(p_values)) == naive_holm(p_values)
    assert all(corrected >= p for corrected, p in zip(holm(p_values), p_values, strict=True))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=40))
def test_weights_sum_to_one_and_give_the_mean_of_means(drawn: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(drawn, columns=["task", "query_language"])
    frame = frame.assign(suite="s", document_language=frame["query_language"], query_id=range(len(frame)))
    assert query_weights(frame).sum() == pytest.approx(1)
    values = np.arange(len(frame), dtype=float)
    means = frame.assign(value=values).groupby(["task", "query_language"])["value"].mean()
    assert weighted_mean(frame, values) == pytest.approx(means.groupby("task").mean().mean())
    of_cells = means.reset_index()
    assert of_cells["value"] @ cell_weights(of_cells["task"].tolist()) == pytest.approx(weighted_mean(frame, values))
