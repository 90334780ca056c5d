"""The choice among candidates, and fillers that never answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.negatives.choice import choose, fill
from retrofit.negatives.search import Candidates


def table(queries: int, width: int = 8) -> Candidates:
    passages = np.arange(queries * width).reshape(queries, width)
    return Candidates(passages, np.tile(np.linspace(0.9, 0.2, width, dtype=np.float32), (queries, 1)))


IDS = np.arange(1000, 1004, dtype=np.uint64)


@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.sampled_from(["top", "random", "weighted"]), st.integers(0, 9))
def test_only_what_is_kept_is_chosen_and_no_more_than_there_is(bits: int, count: int, sampling: str, seed: int) -> None:
    kept = np.array([[bits >> (8 * row + place) & 1 for place in range(8)] for row in range(4)], dtype=bool)
    chosen = choose(table(4), kept, count, sampling, IDS, seed)  # type: ignore[arg-type]
    assert chosen.shape == (4, count)
    for row in range(4):
        taken = chosen[row][chosen[row] >= 0].tolist()
        assert len(set(taken)) == len(taken) == min(count, kept[row].sum())
        assert set(taken) <= set((row * 8 + np.flatnonzero(kept[row])).tolist())
        if sampling == "top":
            assert taken == (row * 8 + np.flatnonzero(kept[row]))[:count].tolist()


@pytest.mark.parametrize("sampling", ["random", "weighted"])
def test_a_draw_depends_on_query_and_seed_and_not_on_the_row(sampling: str) -> None:
    one = Candidates(table(1).passages.repeat(4, axis=0), table(4).scores)
    kept = np.ones((4, 8), dtype=bool)
    drawn = choose(one, kept, 3, sampling, IDS, 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(choose(one, kept, 3, sampling, IDS[::-1].copy(), 0)[::-1], drawn)  # type: ignore[arg-type]
    many = np.arange(200, dtype=np.uint64)
    wide = Candidates(table(1).passages.repeat(200, axis=0), table(200).scores)
    first = choose(wide, np.ones((200, 8), bool), 1, sampling, many, 0)[:, 0]  # type: ignore[arg-type]
    other = choose(wide, np.ones((200, 8), bool), 1, sampling, many, 1)[:, 0]  # type: ignore[arg-type]
    assert (first != other).any()
    counts = np.bincount(first, minlength=8)
    if sampling == "random":
        assert counts.min() > 8
    else:
        assert counts[0] > 120
        assert 0 < counts[1] < 60


@given(st.integers(1, 12), st.data(), st.integers(0, 50))
def test_fillers_never_answer_and_never_repeat(pool_size: int, data: st.DataObject, seed: int) -> None:
    pool = np.arange(100, 100 + pool_size)
    positives = [np.array(sorted(data.draw(st.sets(st.sampled_from(pool.tolist())))), dtype=np.int64) for _ in range(4)]
    chosen = np.full((4, 3), -1)
    chosen[0, 0] = 100
    filled, gaps = fill(chosen, pool, positives, IDS, seed)
    assert filled[0, 0] == 100
    assert gaps == (filled >= 0).sum() - 1
    for row in range(4):
        taken = filled[row][filled[row] >= 0].tolist()
        assert len(set(taken)) == len(taken)
        added = taken[1:] if row == 0 else taken
        assert not set(added) & set(positives[row].tolist())
        assert set(taken) <= set(pool.tolist())
    np.testing.assert_array_equal(fill(chosen, pool, positives, IDS, seed)[0], filled)


def test_gaps_are_filled_where_there_is_enough() -> None:
    filled, gaps = fill(np.full((4, 2), -1), np.arange(50), [np.array([1, 2])] * 4, IDS, 0)
    assert gaps == 8
    assert (filled >= 0).all()
