"""Round trip: ranks against sorting everything, and what is rejected by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.engine import LOCAL
from retrofit.errors import UserError
from retrofit.synthesis import round_trip
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.records import Request, SourcePassage, Written
from retrofit.synthesis.round_trip import RoundTrip, ranks


class Vectors:
    """Embeddings in memory."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return self.vectors[positions]


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1_000))
def test_ranks_are_those_of_a_full_sort(queries: int, passages: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = [generator.standard_normal((n, 8)).astype(np.float32) for n in (queries, passages)]
    own = generator.integers(passages, size=queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_trip, "_QUERIES_A_BLOCK", 7)
        patch.setattr(round_trip, "_PASSAGES_A_BLOCK", 4)
        found = ranks(Vectors(vectors[0]), Vectors(vectors[1]), own)  # type: ignore[arg-type]
    scores = vectors[0].astype(np.float64) @ vectors[1].astype(np.float64).T
    order = np.argsort(-scores, axis=1)
    assert found.tolist() == [order[row].tolist().index(own[row]) + 1 for row in range(queries)]


def test_equal_passages_do_not_push_the_own_one_down() -> None:
    vectors = np.full((50, 384), 384**-0.5, dtype=np.float32)
    assert ranks(Vectors(vectors), Vectors(vectors), np.arange(50)).max() <= 50  # type: ignore[arg-type]
    alone = np.eye(3, dtype=np.float32)
    assert ranks(Vectors(alone), Vectors(alone), np.arange(3)).tolist() == [1, 1, 1]  # type: ignore[arg-type]


@pytest.fixture
def searching(tiny: Path) -> Any:
    def made(k: int | None) -> RoundTrip:
        model = {
            "checkpoint": tiny, "pooling": "mean", "prompts": {"query": "query: ", "passage": "passage: "},
            "max_length": 64,
        }  # fmt: skip
        return RoundTrip(k, model, "float32", 256)

    return made


def candidates() -> tuple[list[Candidate], list[SourcePassage]]:
    passages = [SourcePassage(f"{word} and more of it", "", "en", word, "made up") for word in ("lamp", "door", "key")]
    passages += [SourcePassage("Lampe und mehr davon", "", "de", "lampe", "made up")]
    written = [
        Candidate(Written(Request(passage, "question", passage.language), passage.text, "en/question/1"))
        for passage in passages
    ]
    return written, passages


def test_a_query_that_finds_its_passage_stays(searching: Any, tmp_path: Path) -> None:
    written, passages = candidates()
    written[1].written = Written(written[1].written.request, passages[0].text, "en/question/1")  # asks for another
    searching(1).apply(written, passages, tmp_path, LOCAL)
    assert [item.rank for item in written][0::2] == [1, 1]
    assert [item.rejected for item in written] == ["", "round_trip", "", ""]
    assert written[1].rank > 1
    assert written[3].rank == 1  # the only German passage


def test_without_k_nothing_is_asked(searching: Any, tmp_path: Path) -> None:
    written, passages = candidates()
    searching(None).apply(written, passages, tmp_path, LOCAL)
    assert [item.rank for item in written] == [0] * 4
    assert list(tmp_path.iterdir()) == []
    assert searching(None).identity() == {"k": None}


def test_what_is_rejected_depends_on_k_and_the_model(searching: Any) -> None:
    assert searching(1).identity() != searching(2).identity()
    assert searching(1).identity()["model"]["weights"]
    with pytest.raises(UserError, match=r"data_source.round_trip.k=0: expected"):
        searching(0)
