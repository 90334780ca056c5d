"""What each of two factors does at equal budget, and whether they depend on each other: the analysis of a full grid.

The model is the mixed one of a randomised block design: a mean for each cell of the grid, and an intercept for each
seed. On a balanced grid its fixed effects are those of least squares with seeds as blocks, and the t and F tests of
these are exact. statsmodels' MixedLM (0.15, tried on 27 runs) gives the same estimates, warns that the variance of
three seeds lies on the edge of what it can fit, and tests by Wald's z, which takes the noise for known and so is too
sure of itself. So it is least squares here, by numpy, and no package more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from retrofit.analysis.significance import SIGNIFICANT, holm


@dataclass(frozen=True)
class Effect:
    """A contrast of the cells of a grid.

    Attributes:
        name: what is told from what.
        estimate: of nDCG@10.
        low: lower end of the 95% interval.
        high: upper end.
        p: two-sided, corrected by Holm's method for the contrasts of the grid.
    """

    name: str
    estimate: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below .05."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Effects:
    """What two factors do.

    Attributes:
        first: from the lowest level of the first factor to its highest, mean over the levels of the second.
        second: likewise, of the second factor.
        first_over_second: how much more the first does than the second.
        interaction: what both at their highest do beyond the sum of each alone.
        p_interaction: of the F test of all interaction terms at once.
        degrees: of freedom that are left for the noise.
    """

    first: Effect
    second: Effect
    first_over_second: Effect
    interaction: Effect
    p_interaction: float
    degrees: int

    @property
    def all(self) -> list[Effect]:
        """The contrasts in their order."""
        return [self.first, self.second, self.first_over_second, self.interaction]


def factorial_effects(runs: pd.DataFrame, first: str, second: str) -> Effects | None:
    """Return the effects of two factors; None where the grid has a hole or nothing is left to measure the noise by.

    Args:
        runs: a row for each run: both factors' columns (numbers), ``seed`` and ``gain``.
        first: column of the first factor.
        second: column of the second factor.
    """
    levels = [sorted(runs[factor].unique()) for factor in (first, second)]
    grid = list(itertools.product(*levels))
    cells = [grid.index(cell) for cell in zip(runs[first], runs[second], strict=True)]
    if min(map(len, levels)) < 2 or len(set(cells)) < len(grid):
        return None
    gains = runs["gain"].to_numpy(dtype=np.float64)
    blocks = _seed_columns(runs["seed"].to_numpy())
    design = np.hstack([np.eye(len(grid))[cells], blocks])
    fitted, noise, rank = _least_squares(design, gains)
    degrees = len(gains) - rank
    if degrees < 1:
        return None
    covariance = np.linalg.pinv(design.T @ design) * noise / degrees
    ends = {
        first: _range(grid, 0, levels[0]),
        second: _range(grid, 1, levels[1]),
    }
    corners = np.outer(_ends(levels[0]), _ends(levels[1])).ravel()
    contrasts = {
        f"{first}: {levels[0][0]:g} to {levels[0][-1]:g}": ends[first],
        f"{second}: {levels[1][0]:g} to {levels[1][-1]:g}": ends[second],
        f"{first} over {second}": ends[first] - ends[second],
        "interaction": corners,
    }
    found = [_contrast(weights, fitted, covariance, degrees) for weights in contrasts.values()]
    corrected = holm([p for *_, p in found])
    named = [
        Effect(name, estimate, low, high, p)
        for name, (estimate, low, high, _), p in zip(contrasts, found, corrected, strict=True)
    ]
    additive = np.hstack([_dummies(runs[first].to_numpy()), _dummies(runs[second].to_numpy())[:, 1:], blocks])
    _, more_noise, _ = _least_squares(additive, gains)
    terms = (len(levels[0]) - 1) * (len(levels[1]) - 1)
    explained = more_noise - noise
    # Sums of squares that are only rounding: nothing is left to explain, or to explain it by.
    rounding = 1e-12 * float((gains**2).sum())
    ratio = 0.0 if explained <= rounding else explained / terms / (noise / degrees) if noise > rounding else np.inf
    of_first, of_second, over, interaction = named
    return Effects(of_first, of_second, over, interaction, float(stats.f.sf(ratio, terms, degrees)), degrees)


def _seed_columns(seeds: np.ndarray) -> np.ndarray:
    """Return columns for all seeds but one that sum to zero: a cell's mean is then that of a mean seed."""
    dummies = _dummies(seeds)
    columns: np.ndarray = dummies[:, 1:] - dummies[:, :1]
    return columns


def _dummies(values: np.ndarray) -> np.ndarray:
    columns: np.ndarray = (values[:, None] == np.unique(values)[None, :]).astype(np.float64)
    return columns


def _least_squares(design: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Return coefficients, the residual sum of squares, and the rank of the design."""
    fitted, _, rank, _ = np.linalg.lstsq(design, gains, rcond=None)
    return fitted, float(((gains - design @ fitted) ** 2).sum()), int(rank)


def _ends(levels: list[float]) -> np.ndarray:
    weights = np.zeros(len(levels))
    weights[0], weights[-1] = -1, 1
    return weights


def _range(grid: list[tuple[float, ...]], place: int, levels: list[float]) -> np.ndarray:
    """Return the weights of the cells in the difference between a factor's highest and lowest level."""
    others = len(grid) / len(levels)
    return np.array([(cell[place] == levels[-1]) - float(cell[place] == levels[0]) for cell in grid]) / others


def _contrast(
    weights: np.ndarray, fitted: np.ndarray, covariance: np.ndarray, degrees: int
) -> tuple[float, float, float, float]:
    """Return estimate, interval and uncorrected p of a contrast of the cells."""
    padded = np.concatenate([weights, np.zeros(len(fitted) - len(weights))])
    estimate, error = float(padded @ fitted), float(np.sqrt(padded @ covariance @ padded))
    half = float(stats.t.ppf(0.975, degrees)) * error
    p = 2 * float(stats.t.sf(abs(estimate) / error, degrees)) if error > 0 else float(estimate == 0)
    return estimate, estimate - half, estimate + half, p
