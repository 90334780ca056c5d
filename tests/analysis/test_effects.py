"""Effects of two factors: known ones are found, seeds are blocks, and noise is no effect."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from retrofit.analysis.effects import Effects, factorial_effects


def grid(tasks: float, languages: float, together: float = 0.0, noise: float = 0.001, seeds: int = 3) -> pd.DataFrame:
    """Gains rise by so much from the lowest level to the highest, and by ``together`` where both are highest."""
    generator = np.random.default_rng(5)
    rows = []
    for n_tasks, n_languages, seed in itertools.product((1, 2, 5), (1, 4, 20), range(seeds)):
        first, second = (n_tasks - 1) / 4, (n_languages - 1) / 19
        gain = 0.05 + tasks * first + languages * second + together * (n_tasks == 5) * (n_languages == 20)
        rows.append((n_tasks, n_languages, seed, gain + 0.01 * seed + noise * generator.normal()))
    return pd.DataFrame(rows, columns=["n_tasks", "n_languages", "seed", "gain"])


def effects(runs: pd.DataFrame) -> Effects:
    found = factorial_effects(runs, "n_tasks", "n_languages")
    assert found is not None
    return found


def test_known_effects_are_found_whatever_the_seeds_add() -> None:
    found = effects(grid(0.03, 0.01))
    assert found.first.estimate == pytest.approx(0.03, abs=0.0015)
    assert found.second.estimate == pytest.approx(0.01, abs=0.0015)
    assert found.first_over_second.estimate == pytest.approx(found.first.estimate - found.second.estimate)
    assert all(effect.low < effect.estimate < effect.high for effect in found.all)
    assert found.first.significant
    assert found.first_over_second.significant
    assert found.p_interaction > 0.05
    assert found.degrees == 16


def test_an_interaction_is_one() -> None:
    found = effects(grid(0.0, 0.0, together=0.02))
    assert found.interaction.estimate == pytest.approx(0.02, abs=0.003)
    assert found.interaction.significant
    assert found.p_interaction < 0.001


def test_noise_is_no_effect() -> None:
    found = effects(grid(0.0, 0.0, noise=0.01))
    assert not any(effect.significant for effect in found.all)


@pytest.mark.parametrize(("tasks", "level"), [(0.0, 0.0), (0.0, 0.1), (0.03, 0.1)])
def test_gains_without_noise_have_no_interaction_of_rounding(tasks: float, level: float) -> None:
    runs = grid(tasks, 0.0, noise=0.0)
    runs["gain"] += level - 0.05
    assert effects(runs).p_interaction == 1


def test_an_interaction_without_noise_is_one() -> None:
    assert effects(grid(0.0, 0.0, together=0.02, noise=0.0)).p_interaction == 0


def test_two_levels_are_the_paired_t_test_over_blocks() -> None:
    runs = grid(0.004, 0.0, noise=0.003).query("n_tasks < 5 and n_languages < 20")
    found = factorial_effects(runs, "n_tasks", "n_languages")
    assert found is not None
    # By hand: residuals of cell means plus seed means, on 12 - 4 - 2 degrees of freedom.
    wide = runs.pivot_table(index="seed", columns=["n_tasks", "n_languages"], values="gain")
    residual = wide.sub(wide.mean(axis=1), axis=0).sub(wide.mean(axis=0), axis=1) + wide.to_numpy().mean()
    error = np.sqrt((residual.to_numpy() ** 2).sum() / 6 * (1 / 6 + 1 / 6))
    difference = wide[2].to_numpy().mean() - wide[1].to_numpy().mean()
    half = stats.t.ppf(0.975, 6) * error
    assert found.degrees == 6
    assert (found.first.estimate, found.first.low, found.first.high) == pytest.approx(
        (difference, difference - half, difference + half)
    )


def test_a_lost_run_leaves_the_estimate_near_what_it_was() -> None:
    runs = grid(0.03, 0.01)
    assert effects(runs.drop(index=4)).first.estimate == pytest.approx(effects(runs).first.estimate, abs=0.001)


@pytest.mark.parametrize("what", ["n_tasks != 5 or n_languages != 20", "n_tasks == 1", "seed == 0"])
def test_a_grid_with_a_hole_or_without_noise_tells_nothing(what: str) -> None:
    assert factorial_effects(grid(0.03, 0.01).query(what), "n_tasks", "n_languages") is None
