"""Where a curve through gains levels off, on curves whose plateau is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from retrofit.analysis.saturation import CURVES, exponential, plateau, power_law, saturation

AMOUNTS = np.array([125, 250, 500, 1000, 2000, 4000], dtype=np.float64)


def runs(gains: np.ndarray, spread: float = 0.0) -> pd.DataFrame:
    """Three seeds, one below and one above."""
    frames = [pd.DataFrame({"n": AMOUNTS, "seed": seed, "gain": gains + spread * (seed - 1)}) for seed in range(3)]
    return pd.concat(frames, ignore_index=True)


def test_an_exponential_is_recognised_and_its_plateau_found() -> None:
    fit = saturation(runs(exponential(AMOUNTS, 0.1, 0.06, 500)))
    assert fit is not None
    assert fit.form == "exponential"
    assert fit.parameters == pytest.approx((0.1, 0.06, 500), rel=1e-3)
    assert fit.plateau == pytest.approx(500 * math.log(0.06 / 0.005), rel=1e-3)
    assert fit.at(np.array([fit.plateau]))[0] == pytest.approx(0.95 * fit.asymptote)
    assert fit.explained == pytest.approx(1)
    assert fit.reached


def test_a_power_law_is_recognised_and_its_plateau_found() -> None:
    fit = saturation(runs(power_law(AMOUNTS, 0.1, 0.5, 0.6)))
    assert fit is not None
    assert fit.form == "power law"
    assert fit.parameters == pytest.approx((0.1, 0.5, 0.6), rel=1e-2)
    assert fit.plateau == pytest.approx((0.5 / 0.005) ** (1 / 0.6), rel=0.05)
    assert fit.at(np.array([fit.plateau]))[0] == pytest.approx(0.95 * fit.asymptote)


def test_what_still_rises_at_the_end_has_not_levelled_off() -> None:
    fit = saturation(runs(0.01 * np.log2(AMOUNTS), 0.001))
    assert fit is not None
    assert not fit.reached
    assert fit.high > AMOUNTS[-1]


def test_the_interval_holds_the_plateau_and_is_that_of_the_seeds() -> None:
    gains = exponential(AMOUNTS, 0.1, 0.06, 500)
    alike = saturation(runs(gains))
    steeper = runs(gains)
    steeper.loc[steeper["seed"] == 2, "gain"] = exponential(AMOUNTS, 0.1, 0.06, 900)
    apart = saturation(steeper)
    assert alike is not None
    assert apart is not None
    assert alike.low == pytest.approx(alike.high, rel=1e-3)
    assert apart.low < apart.plateau < apart.high
    assert apart.high > 1.2 * apart.low


def test_the_interval_covers_as_often_as_it_says() -> None:
    curve = exponential(AMOUNTS, 0.126, 0.04, 450)
    true, covered = 450 * math.log(0.04 / (0.05 * 0.126)), 0
    for draw in range(60):
        noise = np.random.default_rng(draw).normal(0, 0.005, (3, len(AMOUNTS)))
        fit = saturation(
            pd.concat(pd.DataFrame({"n": AMOUNTS, "seed": seed, "gain": curve + noise[seed]}) for seed in range(3))
        )
        assert fit is not None
        covered += fit.low <= true <= fit.high
    assert covered >= 54


def test_noise_at_a_plateau_is_no_fall_and_neither_is_a_loss_that_shrinks() -> None:
    called = 0
    for draw in range(60):
        noise = np.random.default_rng(draw).normal(0, 0.004, (3, len(AMOUNTS)))
        gains = [pd.DataFrame({"n": AMOUNTS, "seed": seed, "gain": 0.03 + noise[seed]}) for seed in range(3)]
        fit = saturation(pd.concat(gains))
        called += fit is not None and fit.falls
    assert called <= 9
    fit = saturation(runs(np.array([-0.05, -0.03, -0.02, -0.015, -0.012, -0.01])))
    assert fit is None or not fit.falls


def test_a_level_curve_is_level_from_the_smallest_amount_on() -> None:
    fit = saturation(runs(np.full(6, 0.05), 0.001))
    assert fit is not None
    assert fit.plateau == AMOUNTS[0]


def test_what_falls_again_has_not_levelled_off() -> None:
    for gains in (np.linspace(0.13, -0.02, 6), np.array([0.02, 0.06, 0.1, 0.1, 0.07, 0.03])):
        fit = saturation(runs(gains, 0.001))
        assert fit is not None
        assert fit.falls
        assert not fit.reached
    noise = np.array([0.02, 0.06, 0.09, 0.1, 0.101, 0.099])
    fit = saturation(runs(noise, 0.001))
    assert fit is not None
    assert not fit.falls


@pytest.mark.parametrize("form", CURVES)
def test_a_base_that_does_not_gain_has_no_plateau(form: str) -> None:
    assert plateau(form, (-0.01, 0.02, 500.0), 125) == math.inf


def test_three_amounts_are_too_few() -> None:
    assert saturation(runs(exponential(AMOUNTS, 0.1, 0.06, 500)).query("n < 1000")) is None
