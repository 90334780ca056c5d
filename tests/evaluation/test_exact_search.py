"""The search against sorting everything, ties and blocks included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrofit.evaluation import exact_search
from retrofit.evaluation.exact_search import inner_products, score_candidates, search

ROWS = st.integers(1, 12).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=5)
)


@given(ROWS, st.integers(1, 14), st.randoms(use_true_random=False))
def test_of_equal_scores_the_larger_id_comes_first_at_the_cut_as_well(
    rows: list[list[int]], k: int, random: np.random.Generator
) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    ids = [f"p{column}" for column in range(len(rows[0]))]
    random.shuffle(ids)
    found = search(lambda part: scores[part], len(rows), ids, k)
    candidates = [ids[: 1 + number] for number in range(len(rows))]
    scored = score_candidates(lambda part: scores[part], candidates, ids)
    for number, row in enumerate(rows):
        of_id = dict(zip(ids, map(float, row), strict=True))
        ranked = sorted(ids, key=lambda passage_id: (of_id[passage_id], passage_id), reverse=True)[:k]
        assert list(found[number].items()) == [(passage_id, of_id[passage_id]) for passage_id in ranked]
        assert scored[number] == {passage_id: of_id[passage_id] for passage_id in candidates[number]}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand((20, 30), generator=torch.Generator().manual_seed(0))
    ids = [f"p{column}" for column in range(30)]
    whole = search(lambda part: scores[part], 20, ids, 7)
    monkeypatch.setattr(exact_search, "_SCORES_AT_ONCE", 100)
    asked: list[slice] = []

    def some(part: slice) -> torch.Tensor:
        asked.append(part)
        return scores[part]

    assert search(some, 20, ids, 7) == whole
    assert [part.stop - part.start for part in asked] == [3, 3, 3, 3, 3, 3, 2]


def test_equal_passages_have_equal_scores_wherever_they_stand() -> None:
    generator = np.random.default_rng(0)
    distinct = generator.normal(size=(37, 48)).astype(np.float32)
    which = generator.integers(37, size=501)
    queries = generator.normal(size=(9, 48)).astype(np.float32)
    scores = inner_products(distinct[which])(queries).numpy()
    assert scores == pytest.approx(queries @ distinct[which].T, abs=1e-4)
    for passage in range(37):
        assert (scores[:, which == passage] == scores[:, which == passage][:, :1]).all()
