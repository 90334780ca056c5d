"""How far to go from the base towards the retrofitted weights, decided on validation data alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from retrofit.errors import UserError
from retrofit.evaluation.summary import language_means, metrics_frame, suite_mean
from retrofit.training.allowed_values import Number

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """What one interpolation weight does on the validation split, nDCG@10 against the base.

    Attributes:
        weight: 0 is the base, 1 the retrofitted weights.
        gain: mean change over the suites of the training domain.
        retention: change of the suite that fell most among those whose name starts with ``retention``.
        languages_down: how many languages of the training-domain suites fell.
    """

    weight: float
    gain: float
    retention: float
    languages_down: int


def judge(weight: float, base: pa.Table, interpolated: pa.Table) -> Candidate:
    """Return what per-query validation results of the base and of interpolated weights say about a weight."""
    metrics = metrics_frame({"base": base, "retrofitted": interpolated}, trained_on=())
    change = {
        suite: suite_mean(metrics, "retrofitted", suite) - suite_mean(metrics, "base", suite)
        for suite in metrics["suite"].unique()
    }
    retention = [value for suite, value in change.items() if suite.startswith("retention")]
    domain = {suite: value for suite, value in change.items() if not suite.startswith("retention")}
    down = sum(int((language_means(metrics, suite)["gain"] < 0).sum()) for suite in domain)
    return Candidate(
        weight,
        gain=sum(domain.values()) / max(1, len(domain)),
        retention=min(retention, default=0.0),
        languages_down=down,
    )


def choose_weight(candidates: Sequence[Candidate], max_drop: float, gain_share: float) -> Candidate:
    """Return the candidate nearest the base that has most of the gain, among those that forget no more than allowed.

    Gain flattens along the way from the base while forgetting, some of which no validation suite sees, speeds up: the
    last bit of gain costs most. Where all candidates forget more than allowed, the one that forgets least is returned.

    Args:
        candidates: at least one.
        max_drop: how much a retention suite may fall, nDCG@10.
        gain_share: share, 0 to 1, of the largest gain that is enough; 1 takes the largest gain itself.
    """
    allowed = [candidate for candidate in candidates if candidate.retention >= -max_drop]
    if not allowed:
        log.warning("every interpolation weight forgets more than export.max_drop=%g on the validation split", max_drop)
        return max(candidates, key=lambda candidate: candidate.retention)
    best = max(candidate.gain for candidate in allowed)
    enough = [candidate for candidate in allowed if candidate.gain >= min(best, gain_share * best)]
    return min(enough, key=lambda candidate: candidate.weight)


def candidates_frame(candidates: Sequence[Candidate], chosen: Candidate) -> pd.DataFrame:
    """Return the candidates as a table with the choice marked, for ``interpolation.csv``."""
    return pd.DataFrame([{**asdict(candidate), "chosen": candidate == chosen} for candidate in candidates])


def weights_to_try(interpolation: float | Sequence[float]) -> list[float]:
    """Return the interpolation weights of the configuration, ascending.

    Raises:
        UserError: none is given, or one lies outside 0 (excluded) to 1.
    """
    weights: list[Any] = list(interpolation) if isinstance(interpolation, Sequence) else [interpolation]
    allowed = Number("", 0, 1, above=True)
    if not weights or not all(allowed.allows(weight) for weight in weights):
        raise UserError(
            f"export.interpolation={interpolation}: expected one weight or several, each above 0 and at most 1"
        )
    return sorted(float(weight) for weight in weights)


def try_weights(
    weights: Sequence[float],
    evaluate_at: Callable[[float], pa.Table],
    base: pa.Table,
    max_drop: float,
    gain_share: float,
) -> tuple[Candidate, pd.DataFrame]:
    """Return the chosen candidate and the table of all of them."""
    candidates = []
    for weight in weights:
        candidate = judge(weight, base, evaluate_at(weight))
        log.info(
            "interpolation %.2f: validation gain %+.4f, retention %+.4f, %d languages down",
            weight,
            candidate.gain,
            candidate.retention,
            candidate.languages_down,
        )
        candidates.append(candidate)
    chosen = choose_weight(candidates, max_drop, gain_share)
    return chosen, candidates_frame(candidates, chosen)
