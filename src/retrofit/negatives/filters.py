"""What makes a candidate unfit as a negative: that it answers the query, or probably does.

Filters look at all queries at once. Each says which candidates it would keep; the first that rejects a candidate is
counted, so that the counts add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrofit.negatives.search import Candidates


@dataclass(frozen=True)
class Judged:
    """Candidates, and what is known of their queries.

    Attributes:
        candidates: of each query.
        known: bool ``[queries, k]``, whether a candidate is a known positive of the query, or the same text as one.
        positive_scores: float32 ``[queries]``, the query's similarity to the positive it is trained with.
    """

    candidates: Candidates
    known: np.ndarray
    positive_scores: np.ndarray


class Filter(Protocol):
    """A rule that rejects candidates."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return bool ``[queries, k]``: the candidates it has nothing against."""


@dataclass(frozen=True)
class NotKnown:
    """Rejects known positives of the query, and texts that equal one."""

    name: str = "known_positive"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates that are not known to answer."""
        return ~judged.known


@dataclass(frozen=True)
class RankWindow:
    """Keeps candidates from one rank to another, both counted from 1; those in front may well be right answers.

    Attributes:
        first: first rank that is kept.
        last: last rank that is kept.
    """

    first: int
    last: int
    name: str = "rank"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates of the window; known positives do not count as ranks."""
        ranks = np.cumsum(~judged.known, axis=1)
        return (ranks >= self.first) & (ranks <= self.last)


@dataclass(frozen=True)
class AtMost:
    """Rejects candidates that score above a bound, whatever the positive scores.

    Attributes:
        score: the bound.
    """

    score: float
    name: str = "score"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates at or below the bound."""
        below: np.ndarray = judged.candidates.scores <= self.score
        return below


@dataclass(frozen=True)
class Margin:
    """Rejects candidates nearer to the positive's score than a share of it: keeps ``s <= s+ - |s+| * margin``.

    The absolute value makes the bound lie below the positive's score when that is negative, too; a plain
    ``s+ * (1 - margin)`` would lie above it.

    Attributes:
        margin: the share, 0.05 for five percent.
    """

    margin: float
    name: str = "margin"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates that are far enough below the positive."""
        positive = judged.positive_scores[:, None]
        bound: np.ndarray = positive - np.abs(positive) * self.margin
        return judged.candidates.scores <= bound


def apply(filters: Sequence[Filter], judged: Judged) -> tuple[np.ndarray, dict[str, int]]:
    """Return the candidates that all filters keep, bool ``[queries, k]``, and how many each filter rejected.

    A candidate that several would reject counts for the first; ``kept`` counts those that are left.
    """
    left = judged.candidates.passages >= 0
    counts: dict[str, int] = {}
    for rule in filters:
        keeps = rule.keeps(judged)
        counts[rule.name] = int((left & ~keeps).sum())
        left = left & keeps
    counts["kept"] = int(left.sum())
    return left, counts
