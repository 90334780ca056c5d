"""The sampling plan: which pairs form which batch, decided by the seed alone before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from retrofit.data.selection import Stratum

Homogeneous = Literal["both", "task", "language", "mixed"]
"""What the pairs of a batch have in common: task and languages, the task, the languages, or nothing."""


@dataclass(frozen=True)
class Mixture:
    """In which proportions tasks and languages are drawn, and what shares a batch.

    A task of n pairs gets a share of all draws proportional to ``weight · n^alpha_task``; within a task, a language
    pair of m pairs gets a share of the task's proportional to ``m^alpha_language``. An exponent of 1 follows the data,
    0 treats all alike (temperature sampling, Conneau et al. 2020, section 3.1, on two axes).

    Attributes:
        alpha_task: exponent of a task's size.
        alpha_language: exponent of a language pair's size within its task.
        task_weights: factor by task, 1 where a task is not named.
        homogeneous: what the pairs of a batch have in common.
    """

    alpha_task: float = 0.5
    alpha_language: float = 0.5
    task_weights: Mapping[str, float] = field(default_factory=dict)
    homogeneous: Homogeneous = "both"

    def shares(self, sizes: Mapping[Stratum, int]) -> dict[Stratum, float]:
        """Return each stratum's share of the draws; they sum to 1.

        Args:
            sizes: number of pairs of each stratum, all above zero.
        """
        size_of_task: dict[str, int] = {}
        within: dict[str, float] = {}
        for (task, *_), size in sizes.items():
            size_of_task[task] = size_of_task.get(task, 0) + size
            within[task] = within.get(task, 0.0) + size**self.alpha_language
        mass = {task: self.task_weights.get(task, 1.0) * size**self.alpha_task for task, size in size_of_task.items()}
        total = sum(mass.values())
        return {
            key: mass[key[0]] / total * size**self.alpha_language / within[key[0]] if total else 0.0
            for key, size in sizes.items()
        }

    def batch_key(self, stratum: Stratum) -> Stratum:
        """Return what all pairs of a stratum's batch have in common."""
        task, *languages = stratum
        return {"both": stratum, "task": (task,), "language": tuple(languages), "mixed": ()}[self.homogeneous]


@dataclass(frozen=True)
class PlannedBatch:
    """The rows of one step.

    Attributes:
        rows: row numbers of the pairs table, int64 ``[pairs]``, all of them different.
        visits: how often each row was drawn before, int64 ``[pairs]``: rotates several positives of a query.
    """

    rows: np.ndarray
    visits: np.ndarray


@dataclass(frozen=True)
class _Draws:
    """What there is to draw from: each stratum's share, and the strata that share batches."""

    sizes: dict[Stratum, int]
    shares: dict[Stratum, float]
    members: list[list[Stratum]]

    @classmethod
    def of(cls, strata: Mapping[Stratum, np.ndarray], mixture: Mixture) -> _Draws:
        sizes = {key: len(rows) for key, rows in sorted(strata.items()) if len(rows) > 1}
        shares = {key: share for key, share in mixture.shares(sizes).items() if share > 0}
        if not shares:
            raise ValueError("no task and language has two pairs; a batch needs a second pair for a negative")
        members: dict[Stratum, list[Stratum]] = {}
        for key in shares:
            members.setdefault(mixture.batch_key(key), []).append(key)
        return cls(sizes, shares, list(members.values()))

    @property
    def group_shares(self) -> list[float]:
        return [sum(self.shares[key] for key in keys) for keys in self.members]

    def batch_sizes(self, batch_size: int) -> list[int]:
        """Return the pairs of a batch of each group: all there are where they are fewer than asked for."""
        return [min(batch_size, sum(self.sizes[key] for key in keys)) for keys in self.members]


def steps_of_passes(strata: Mapping[Stratum, np.ndarray], batch_size: int, passes: float, mixture: Mixture) -> int:
    """Return the number of steps, at least one, that draw as many pairs as so many passes over all strata have.

    Where strata are small, batches are smaller than asked for, and more of them make a pass.

    Args:
        strata: row numbers of each stratum.
        batch_size: pairs a step.
        passes: may be part of one.
        mixture: in which proportions, and what shares a batch.

    Raises:
        ValueError: no batch would hold two pairs.
    """
    draws = _Draws.of(strata, mixture)
    drawn_a_step = np.dot(draws.group_shares, draws.batch_sizes(batch_size))
    return max(1, round(passes * sum(draws.sizes[key] for key in draws.shares) / float(drawn_a_step)))


class SamplingPlan:
    """The batches of a run.

    Within a stratum (task, query language, document language) every pair is used once before any is used twice. The
    plan is a pure function of its arguments: step 57 is the same batch whether or not steps 0 to 56 were run, which is
    what makes resuming exact. It holds row numbers and, for batches of several strata, six bytes a draw.
    """

    def __init__(
        self, strata: Mapping[Stratum, np.ndarray], batch_size: int, steps: int, mixture: Mixture, seed: int
    ) -> None:
        """Lay out what each step draws from.

        Args:
            strata: row numbers of each stratum; those of fewer than two pairs, or of no share, are left out.
            batch_size: pairs a step; where there are fewer to draw from, a batch is smaller.
            steps: number of batches.
            mixture: in which proportions, and what shares a batch.
            seed: of the order of steps and of pairs.

        Raises:
            ValueError: no batch would hold two pairs, so none would hold a negative.
        """
        draws = _Draws.of(strata, mixture)
        shares = draws.shares
        turns = _apportion(draws.group_shares, steps)
        in_order = np.repeat(np.arange(len(turns), dtype=np.int32), turns)
        self._group_of_step = np.random.default_rng([seed, 0]).permutation(in_order)
        self._turn_of_step = _ranks(self._group_of_step)
        number_of = {key: number for number, key in enumerate(shares)}
        self._groups = []
        for number, (keys, size) in enumerate(zip(draws.members, draws.batch_sizes(batch_size), strict=True)):
            together = size if len(keys) == 1 else 1
            passes = [_Passes(strata[key], together, (seed, 1, number_of[key])) for key in keys]
            group_shares = [shares[key] for key in keys]
            self._groups.append(_Group(passes, group_shares, size, int(turns[number]), (seed, 2, number)))

    def __len__(self) -> int:
        return len(self._group_of_step)

    def batch(self, step: int) -> PlannedBatch:
        """Return the pairs of a step."""
        return self._group(step).batch(int(self._turn_of_step[step]))

    def sample(self, step: int, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return up to ``count`` different row numbers (int64) from among those a step's batch is drawn from."""
        return self._group(step).sample(count, generator)

    def _group(self, step: int) -> _Group:
        return self._groups[int(self._group_of_step[step])]


class _Passes:
    """The rows of a stratum, pass after pass, each pass in an order of its own.

    Where the stratum has batches to itself, one of them may take the last rows of a pass and the first of the next:
    these are then others than those.
    """

    def __init__(self, rows: np.ndarray, together: int, seed: tuple[int, ...]) -> None:
        self.rows = rows
        self._together = together  # draws that must be of different rows; 1 where batches are shared with other strata
        self._seed = seed
        self._shuffled = (-1, rows)

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return row and visit (int64) of the stratum's draws by number."""
        visits, places = np.divmod(numbers, len(self.rows))
        rows = np.empty(len(numbers), dtype=np.int64)
        for visit in np.unique(visits).tolist():
            at = visits == visit
            rows[at] = self._pass(visit)[places[at]]
        return rows, visits

    def _pass(self, visit: int) -> np.ndarray:
        """Return the rows in the order of a pass, which depends on the passes before it."""
        reached, order = self._shuffled if self._shuffled[0] <= visit else (-1, self.rows)
        while reached < visit:
            reached += 1
            shuffled = np.random.default_rng([*self._seed, reached]).permutation(self.rows)
            left = reached * len(self.rows) % self._together
            order = _apart(shuffled, order[-left:], self._together - left) if left else shuffled
        self._shuffled = (reached, order)
        return order


def _apart(order: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """Return an order of rows whose first ``count`` are none of the ``last``, else as it was."""
    first = order[~np.isin(order, last)][:count]
    return np.concatenate([first, order[~np.isin(order, first)]])


class _Group:
    """Strata that share batches: as many draws of each as its share says, in shuffled order."""

    def __init__(
        self, strata: list[_Passes], shares: list[float], size: int, turns: int, seed: tuple[int, ...]
    ) -> None:
        self._strata = strata
        self._ends = np.cumsum([len(passes.rows) for passes in strata])
        self._size = size
        if len(strata) > 1:
            draws = _apportion(shares, turns * self._size)
            in_order = np.repeat(np.arange(len(strata), dtype=np.int16), draws)
            self._stratum_of_draw = np.random.default_rng(seed).permutation(in_order)
            self._number_of_draw = _ranks(self._stratum_of_draw)

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        total = int(self._ends[-1])
        places = generator.choice(total, size=min(total, count), replace=False)
        strata = np.searchsorted(self._ends, places, side="right")
        starts = np.concatenate([[0], self._ends])[strata]
        return np.array([self._strata[s].rows[p] for s, p in zip(strata, places - starts, strict=True)], dtype=np.int64)

    def batch(self, turn: int) -> PlannedBatch:
        start = turn * self._size
        if len(self._strata) == 1:
            (passes,) = self._strata
            return PlannedBatch(*passes.draw(np.arange(start, start + self._size)))
        strata = self._stratum_of_draw[start : start + self._size]
        numbers = self._number_of_draw[start : start + self._size]
        rows, visits = np.empty(len(strata), dtype=np.int64), np.empty(len(strata), dtype=np.int64)
        for index in np.unique(strata).tolist():
            at, passes = strata == index, self._strata[index]
            rows[at], visits[at] = passes.draw(numbers[at].astype(np.int64))
        first = np.sort(np.unique(rows, return_index=True)[1])  # a pass may end and the next begin with the same pair
        return PlannedBatch(rows[first], visits[first])


def _apportion(shares: list[float], draws: int) -> np.ndarray:
    """Return how many draws each share gets, int64, each what it asks for to within one.

    Whole draws are given by the rounded-down share, the rest by the largest remainders (Hamilton's method).
    """
    exact = np.asarray(shares) / np.sum(shares) * draws
    counts: np.ndarray = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: draws - counts.sum()]] += 1
    return counts


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return how often each value stood in the array before, int32."""
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], values[order], side="left")
    ranks = np.empty(len(values), dtype=np.int32)
    ranks[order] = np.arange(len(values)) - starts
    return ranks
