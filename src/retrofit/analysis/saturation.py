"""Where more data stop to help: a saturating curve through the gains of runs on more and more pairs.

Two curves that level off are tried: one whose distance from its asymptote falls exponentially, and one where it falls
by a power law, as it does in the scaling laws of language models. Both have three parameters, so the one with the
smaller sum of squares is the one with the smaller AIC, and it is the one that is read. Neither is forced through the
origin: what the first hundred pairs do is not what more of them add.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit

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
        low: lower end of its 95% interval: of its logarithm, by the delta method from what the runs leave of the curve.
        high: upper end.
        measured: the smallest and the largest amount measured.
        falls: whether the largest amount gains less than ``SHARE`` of what the best one does, by more than seeds differ
            (95%, t-test of pairs). No curve of ours falls: one that is fitted all the same is about level, and says
            nothing.
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
    fits = {form: fit for form in CURVES if (fit := _fit(form, n, gains)) is not None}
    if not fits:
        return None
    noise = {form: float(((gains - CURVES[form](n, *parameters)) ** 2).sum()) for form, (parameters, _) in fits.items()}
    form = min(noise, key=lambda name: noise[name])
    parameters, covariance = fits[form]
    spread = float(((gains - gains.mean()) ** 2).sum())
    measured = (float(amounts[0]), float(amounts[-1]))
    low, high = _interval(form, parameters, covariance, len(gains) - len(parameters), measured[0])
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
    return math.inf if parameters[0] <= 0 else max(smallest, _exp(_log_plateau(form, parameters)))


def _log_plateau(form: str, parameters: Sequence[float]) -> float:
    """Return the logarithm of the amount that reaches ``SHARE`` of a positive asymptote; -infinity where all do."""
    asymptote, distance, shape = parameters
    left = (1 - SHARE) * asymptote
    if distance <= left * (1 + 1e-9):
        return -math.inf
    far = math.log(distance / left)
    return math.log(shape * far) if form == "exponential" else far / shape


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < 700 else math.inf


def _falls(runs: pd.DataFrame) -> bool:
    gains = runs.pivot_table(index="seed", columns="n", values="gain")
    best = gains[gains.mean().idxmax()]
    fall = (SHARE * best - gains.iloc[:, -1]).dropna()
    if best.mean() <= 0 or len(fall) < 2:
        return False
    half = stats.t.ppf(0.975, len(fall) - 1) * stats.sem(fall)
    return bool(fall.mean() > half)


def _fit(form: str, n: np.ndarray, gains: np.ndarray) -> tuple[tuple[float, float, float], np.ndarray] | None:
    """Return the parameters that fit best, and their covariance ``[3, 3]``; None where the search does not end."""
    most, rise = float(gains.max()), max(float(np.ptp(gains)), 1e-6)
    if form == "exponential":
        start, bounds = float(np.median(n)), (float(n.min()) / 10, float(n.max()) * 10)
        distance = rise
    else:
        start, bounds = 0.5, (0.05, 5.0)
        distance = rise * float(n.min()) ** 0.5
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of a covariance that cannot be told: it is infinite
            fitted, covariance = curve_fit(
                CURVES[form], n, gains, p0=(most, distance, start), maxfev=5_000, x_scale=(rise, distance, start),
                bounds=((-np.inf, 0, bounds[0]), (np.inf, np.inf, bounds[1])),
            )  # fmt: skip
    except RuntimeError:
        return None
    asymptote, distance, shape = (float(value) for value in fitted)
    return (asymptote, distance, shape), covariance


def _interval(
    form: str, parameters: tuple[float, float, float], covariance: np.ndarray, degrees: int, smallest: float
) -> tuple[float, float]:
    """Return the 95% interval of the plateau."""
    if parameters[0] <= 0:
        return math.inf, math.inf
    middle = _log_plateau(form, parameters)
    if middle == -math.inf:
        return smallest, smallest
    middles, slopes = np.array(parameters), np.zeros(len(parameters))
    for place, step in enumerate(1e-6 * np.abs(middles)):
        ends = (middles + sign * step * np.eye(len(middles))[place] for sign in (1, -1))
        up, down = (_log_plateau(form, end.tolist()) for end in ends)
        slopes[place] = (up - down) / (2 * step)
    variance = float(slopes @ covariance @ slopes)
    if not (degrees > 0 and np.isfinite(variance)):
        return smallest, math.inf
    half = float(stats.t.ppf(0.975, degrees)) * math.sqrt(max(variance, 0.0))
    return max(smallest, _exp(middle - half)), max(smallest, _exp(middle + half))
