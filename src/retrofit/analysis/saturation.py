"""Where more data stop to help: a saturating curve through the gains of runs on more and more pairs.

Two curves that level off are tried: one whose distance from its asymptote falls exponentially, and one where it falls
by a power law, as it does in the scaling laws of language models. Both have three parameters, so the one with the
smaller sum of squares is the one with the smaller AIC, and it is the one that is read. Neither is forced through the
origin: what the first hundred pairs do is not what more of them add.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

from retrofit.analysis.significance import RESAMPLES, percentile_interval

SHARE = 0.95
"""The plateau begins where this share of the fitted asymptote is reached."""

AMOUNTS = 4
"""As many amounts of data are needed to fit three parameters and see how well they fit."""


def exponential(n: np.ndarray, asymptote: float, distance: float, scale: float) -> np.ndarray:
    """Return gains at amounts of data, float64 ``[n]``: the distance from the asymptote falls exponentially."""
    gains: np.ndarray = asymptote - distance * np.exp(-n / scale)
    return gains


def power_law(n: np.ndarray, asymptote: float, distance: float, exponent: float) -> np.ndarray:
    """Return gains at amounts of data, float64 ``[n]``: the distance from the asymptote falls by a power of them."""
    gains: np.ndarray = asymptote - distance * n**-exponent
    return gains


Curve = Callable[..., np.ndarray]
CURVES: dict[str, Curve] = {"exponential": exponential, "power law": power_law}


@dataclass(frozen=True)
class Saturation:
    """A curve through the gains of a sweep, and where it levels off.

    Attributes:
        form: of the curve that fits better, a name of ``CURVES``.
        parameters: asymptote, distance from it, and scale or exponent.
        explained: share of the variance of the runs that the curve explains (R squared).
        plateau: the smallest amount that reaches ``SHARE`` of the asymptote; infinite where nothing does.
        low: lower end of its 95% interval, from a bootstrap over seeds.
        high: upper end.
        measured: the smallest and the largest amount measured.
        falls: whether in every seed the largest amount gains less than ``SHARE`` of the most that an amount gains. No
            curve of ours falls: one that is fitted all the same is about level, and says nothing.
    """

    form: str
    parameters: tuple[float, float, float]
    explained: float
    plateau: float
    low: float
    high: float
    measured: tuple[float, float]
    falls: bool = False

    @property
    def asymptote(self) -> float:
        """What the gain tends to."""
        return self.parameters[0]

    @property
    def reached(self) -> bool:
        """Whether the plateau begins within what was measured, its whole interval included."""
        return not self.falls and self.high <= self.measured[1]

    def at(self, n: np.ndarray) -> np.ndarray:
        """Return the fitted gains at amounts of data, float64 ``[n]``."""
        return CURVES[self.form](n, *self.parameters)


def saturation(runs: pd.DataFrame) -> Saturation | None:
    """Return the curve through the gains of runs; None where too few amounts were measured or no curve fits.

    Args:
        runs: a row for each run: ``n`` (pairs), ``seed`` and ``gain``.
    """
    amounts = np.sort(runs["n"].unique())
    if len(amounts) < AMOUNTS:
        return None
    n, gains = runs["n"].to_numpy(dtype=np.float64), runs["gain"].to_numpy(dtype=np.float64)
    fits = {form: _fit(form, n, gains) for form in CURVES}
    noise = {form: float(((gains - CURVES[form](n, *fit)) ** 2).sum()) for form, fit in fits.items() if fit}
    if not noise:
        return None
    form = min(noise, key=lambda name: noise[name])
    parameters = fits[form]
    if parameters is None:
        return None
    spread = float(((gains - gains.mean()) ** 2).sum())
    measured = (float(amounts[0]), float(amounts[-1]))
    low, high = _interval(runs, form, measured[0])
    return Saturation(
        form=form,
        parameters=parameters,
        explained=1 - noise[form] / spread if spread > 0 else 1.0,
        plateau=plateau(form, parameters, measured[0]),
        low=low,
        high=high,
        measured=measured,
        falls=_falls(runs),
    )


def plateau(form: str, parameters: tuple[float, float, float], smallest: float) -> float:
    """Return the smallest amount of data that reaches ``SHARE`` of the asymptote.

    Args:
        form: of the curve.
        parameters: of the curve.
        smallest: amount measured: what is reached there already is not looked for below.
    """
    asymptote, distance, shape = parameters
    if asymptote <= 0:
        return math.inf
    left = (1 - SHARE) * asymptote
    if distance <= left * 1e-9:
        return smallest
    if form == "exponential":
        return max(smallest, shape * math.log(distance / left))
    exponent = math.log(distance / left) / shape
    return max(smallest, math.exp(exponent)) if exponent < 700 else math.inf


def _falls(runs: pd.DataFrame) -> bool:
    gains = runs.pivot_table(index="seed", columns="n", values="gain")
    return bool((gains.iloc[:, -1] < SHARE * gains.max(axis=1)).all())


def _fit(form: str, n: np.ndarray, gains: np.ndarray) -> tuple[float, float, float] | None:
    """Return the parameters that fit best; None where the search does not end."""
    most, rise = float(gains.max()), max(float(np.ptp(gains)), 1e-6)
    if form == "exponential":
        start, bounds = float(np.median(n)), (float(n.min()) / 10, float(n.max()) * 10)
        distance = rise
    else:
        start, bounds = 0.5, (0.05, 5.0)
        distance = rise * float(n.min()) ** 0.5
    try:
        fitted, _ = curve_fit(
            CURVES[form], n, gains, p0=(most, distance, start), maxfev=5_000, x_scale=(rise, distance, start),
            bounds=((-np.inf, 0, bounds[0]), (np.inf, np.inf, bounds[1])),
        )  # fmt: skip
    except RuntimeError:
        return None
    asymptote, distance, shape = (float(value) for value in fitted)
    return asymptote, distance, shape


def _interval(runs: pd.DataFrame, form: str, smallest: float) -> tuple[float, float]:
    """Return the 95% interval of the plateau where whole seeds are drawn anew."""
    seeds = np.sort(runs["seed"].unique())
    by_seed = {seed: runs[runs["seed"] == seed] for seed in seeds}
    drawn = np.sort(np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds))), axis=1)
    draws, counts = np.unique(drawn, axis=0, return_counts=True)  # of three seeds there are only ten
    plateaus = []
    for draw in draws:
        rows = pd.concat([by_seed[seeds[place]] for place in draw])
        fit = _fit(form, rows["n"].to_numpy(dtype=np.float64), rows["gain"].to_numpy(dtype=np.float64))
        plateaus.append(math.inf if fit is None else plateau(form, fit, smallest))
    # Percentiles interpolate, and between a number and infinity there is nothing: they are taken of what stands in.
    values = np.repeat(np.minimum(plateaus, 1e300), counts)
    low, high = percentile_interval(values)
    return tuple(math.inf if end >= 1e299 else end for end in (low, high))  # type: ignore[return-value]
