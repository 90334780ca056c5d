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
class SecondOpinion:
    """What another model makes of the same candidates.

    Attributes:
        candidates: float32 ``[queries, k]``, its scores of the candidates.
        positives: float32 ``[queries]``, its lowest score of a positive of the query.
    """

    candidates: np.ndarray
    positives: np.ndarray


@dataclass(frozen=True)
class Judged:
    """Candidates, and what is known of their queries.

    Attributes:
        candidates: of each query.
        known: bool ``[queries, k]``, whether a candidate is a known positive of the query, or the same text as one.
        positive_scores: float32 ``[queries]``, the lowest score of a positive the query is trained with.
        near: bool ``[queries, k]``, whether a candidate nearly equals a known positive; None where nobody asked.
        second: another model's opinion; None where nobody asked.
    """

    candidates: Candidates
    known: np.ndarray
    positive_scores: np.ndarray
    near: np.ndarray | None = None
    second: SecondOpinion | None = None


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
class NotNear:
    """Rejects near-duplicates of known positives."""

    name: str = "near_duplicate"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates that do not nearly equal a known positive."""
        assert judged.near is not None  # noqa: S101 -- whoever asks for the filter asks for what it looks at
        return ~judged.near


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
        return judged.candidates.scores <= margin_bound(judged.positive_scores, self.margin)


@dataclass(frozen=True)
class ShareOfPositive:
    """Keeps ``s <= s+ * share`` (TopK-PercPos of NV-Retriever, Moreira et al. 2024).

    For positive scores the same as a margin of ``1 - share``. Where the positive's score is negative the bound lies
    above it, so a model whose scores can be negative wants :class:`Margin`.

    Attributes:
        share: 0.95 for 95 percent.
    """

    share: float
    name: str = "share"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates that score at most a share of what the positive does."""
        kept: np.ndarray = judged.candidates.scores <= judged.positive_scores[:, None] * self.share
        return kept


@dataclass(frozen=True)
class Veto:
    """Rejects candidates that another model finds nearer to its score of the positive than a margin.

    Attributes:
        margin: the share of that score, as for :class:`Margin`.
    """

    margin: float
    name: str = "veto"

    def keeps(self, judged: Judged) -> np.ndarray:
        """Return the candidates that the other model has nothing against."""
        assert judged.second is not None  # noqa: S101 -- whoever asks for the filter asks for what it looks at
        return judged.second.candidates <= margin_bound(judged.second.positives, self.margin)


def margin_bound(positive_scores: np.ndarray, margin: float) -> np.ndarray:
    """Return ``s+ - |s+| * margin`` of each query, float32 ``[queries, 1]``."""
    bound: np.ndarray = positive_scores - np.abs(positive_scores) * margin
    return bound[:, None]


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
