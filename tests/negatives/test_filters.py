"""Filters against false negatives: what each rejects, and counts that add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.negatives.filters import (
    AtMost,
    Judged,
    Margin,
    NotKnown,
    NotNear,
    RankWindow,
    SecondOpinion,
    ShareOfPositive,
    Veto,
    apply,
)
from retrofit.negatives.search import Candidates


def judged(scores: list[list[float]], known: list[list[int]], positives: list[float]) -> Judged:
    """Queries whose candidates are numbered in order."""
    passages = np.arange(np.size(scores)).reshape(np.shape(scores))
    table = Candidates(passages, np.array(scores, dtype=np.float32))
    return Judged(table, np.array(known, dtype=bool), np.array(positives, dtype=np.float32))


ONE = dataclasses.replace(
    judged([[0.9, 0.8, 0.7, 0.6]], [[0, 1, 0, 0]], [0.8]),
    near=np.array([[False, False, True, False]]),
    second=SecondOpinion(np.array([[0.3, 0.9, 0.1, 0.4]]), np.array([0.5])),
)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (NotKnown(), [1, 0, 1, 1]),
        (RankWindow(1, 2), [1, 1, 1, 0]),  # the known positive takes no rank of its own
        (RankWindow(2, 9), [0, 0, 1, 1]),
        (AtMost(0.75), [0, 0, 1, 1]),
        (Margin(0.0), [0, 1, 1, 1]),
        (Margin(0.2), [0, 0, 0, 1]),
        (ShareOfPositive(1.0), [0, 1, 1, 1]),
        (ShareOfPositive(0.8), [0, 0, 0, 1]),
        (NotNear(), [1, 1, 0, 1]),
        (Veto(0.0), [1, 0, 1, 1]),
        (Veto(0.5), [0, 0, 1, 0]),
    ],
    ids=str,
)
def test_what_a_filter_keeps(rule: object, kept: list[int]) -> None:
    assert rule.keeps(ONE).astype(int).tolist() == [kept]  # type: ignore[attr-defined]


def test_the_margin_lies_below_a_negative_score_too() -> None:
    cold = judged([[-0.1, -0.2, -0.25, -0.4]], [[0, 0, 0, 0]], [-0.2])
    assert Margin(0.2).keeps(cold).tolist() == [[False, False, True, True]]
    # As a plain share of the score the bound is -0.16, above the positive itself.
    assert ShareOfPositive(0.8).keeps(cold).tolist() == [[False, True, True, True]]


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=5),
    st.integers(0, 2**25 - 1), st.integers(1, 5), st.floats(0, 0.5), st.floats(-1, 1),
)  # fmt: skip
def test_counts_add_up_and_order_does_not_change_what_is_kept(
    scores: list[list[float]], bits: int, first: int, margin: float, bound: float
) -> None:
    known = [[bits >> (5 * row + place) & 1 for place in range(5)] for row in range(len(scores))]
    ranked = [sorted(row, reverse=True) for row in scores]
    case = judged(ranked, known, [0.3] * len(scores))
    case.candidates.passages[0, 3:] = -1
    filters = [NotKnown(), RankWindow(first, 5), AtMost(bound), Margin(margin)]
    kept, counts = apply(filters, case)
    assert sum(counts.values()) == 5 * len(scores) - 2
    assert counts["kept"] == kept.sum()
    assert not kept[0, 3:].any()
    np.testing.assert_array_equal(apply(filters[::-1], case)[0], kept)
