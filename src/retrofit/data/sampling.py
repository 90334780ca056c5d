"""The sampling plan: which pairs form which batch, decided by the seed alone before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrofit.data.selection import Stratum


@dataclass(frozen=True)
class PlannedBatch:
    """The rows of one step.

    Attributes:
        rows: row numbers of the pairs table, int64 ``[pairs]``, all of them different.
        visits: how often each row was drawn before, int64 ``[pairs]``: rotates several positives of a query.
    """

    rows: np.ndarray
    visits: np.ndarray


class SamplingPlan:
    """Batches of one task and language each, drawn with temperature-weighted proportions.

    A stratum (task, query language, document language) of n pairs gets a share of the steps proportional to
    ``weight · n^alpha``: 1 follows the data, 0 treats all strata alike (temperature sampling, Conneau et al. 2020,
    section 3.1). Within a stratum every pair is used once before any is used twice. The plan is a pure function of its
    arguments: step 57 is the same batch whether or not steps 0 to 56 were run, which is what makes resuming exact.
    """

    def __init__(
        self,
        strata: Mapping[Stratum, np.ndarray],
        batch_size: int,
        steps: int,
        alpha: float,
        seed: int,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        """Lay out the strata of all steps.

        Args:
            strata: row numbers of each stratum; empty ones are left out.
            batch_size: pairs a step; a stratum smaller than that gives batches of its own size.
            steps: number of batches.
            alpha: exponent of the stratum's size.
            seed: of the order of strata and of pairs.
            task_weights: factor by task, 1 where a task is not named.

        Raises:
            ValueError: no stratum has two pairs, so no batch would hold a negative.
        """
        self._rows = {key: rows for key, rows in strata.items() if len(rows) > 1}
        if not self._rows:
            raise ValueError("no task and language has two pairs; a batch needs a second pair for a negative")
        self._keys = sorted(self._rows)
        self._batch_size = batch_size
        self._seed = seed
        weights = dict(task_weights or {})
        mass = np.array([weights.get(key[0], 1.0) * len(self._rows[key]) ** alpha for key in self._keys])
        generator = np.random.default_rng([seed, 0])
        self._stratum_of_step = generator.permutation(_apportion(mass / mass.sum(), steps))
        self._turn_of_step = np.zeros(steps, dtype=np.int64)
        for index in range(len(self._keys)):
            at = self._stratum_of_step == index
            self._turn_of_step[at] = np.arange(at.sum())

    def __len__(self) -> int:
        return len(self._stratum_of_step)

    def stratum(self, step: int) -> Stratum:
        """Return the task and languages of a step's batch."""
        return self._keys[int(self._stratum_of_step[step])]

    def rows(self, step: int) -> np.ndarray:
        """Return all row numbers of a step's stratum, int64."""
        return self._rows[self.stratum(step)]

    def batch(self, step: int) -> PlannedBatch:
        """Return the pairs of a step."""
        index = int(self._stratum_of_step[step])
        rows = self.rows(step)
        size = min(self._batch_size, len(rows))
        per_pass = len(rows) // size  # the remainder of a pass waits for the next shuffle
        visit, place = divmod(int(self._turn_of_step[step]), per_pass)
        shuffled = np.random.default_rng([self._seed, 1, index, visit]).permutation(rows)
        chosen = shuffled[place * size : (place + 1) * size]
        return PlannedBatch(rows=chosen, visits=np.full(len(chosen), visit, dtype=np.int64))


def _apportion(shares: np.ndarray, steps: int) -> np.ndarray:
    """Return a stratum index a step, int64 ``[steps]``, each as often as its share says to within one step.

    Whole steps are given by the rounded-down share, the rest by the largest remainders (Hamilton's method).
    """
    exact = shares * steps
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: steps - counts.sum()]] += 1
    return np.repeat(np.arange(len(shares)), counts)
