"""BM25 over runs of characters."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from retrofit.models.bm25 import Bm25, Bm25Index, character_grams
from retrofit.models.bm25 import LexicalSearcher as Searcher

PASSAGES = [
    "die Lampe in der Küche",
    "東京の住所は秘密です",
    "der Garten am Haus",
    "大阪の天気は晴れです",
    "x",
    "the KITCHEN door",
]


def test_runs_are_those_between_words_too_and_know_no_case_or_marks() -> None:
    assert character_grams(["Ab, c!"], 2, 3) == [[" a", "ab", "b ", " c", "c ", " ab", "ab ", "b c", " c "]]
    assert character_grams(["", "…"], 2, 3) == [["  "], ["  "]]


@pytest.mark.parametrize(("query", "best"), [("Lampe", 0), ("天気", 3), ("住所?", 1), ("kitchens", 5)])
def test_every_script_is_searched(query: str, best: int) -> None:
    scores = Bm25(2, 4).load().index(PASSAGES)([query, "q"])
    assert (scores.shape, scores.dtype) == ((2, len(PASSAGES)), np.float32)
    assert scores[0].argmax() == best
    assert scores[1].tolist() == [0] * len(PASSAGES)


def test_scores_are_those_of_the_formula_and_what_shares_nothing_is_left_out() -> None:
    passages = ["abab cd", "cd cd", "xyz"]
    counts = [Counter(grams) for grams in character_grams(passages, 2, 2)]
    mean = sum(count.total() for count in counts) / 3
    expected = []
    for count in counts:
        score = 0.0
        for gram in set(character_grams(["cd q"], 2, 2)[0]):
            holding = sum(gram in other for other in counts)
            if holding:
                idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
                score += idf * count[gram] / (count[gram] + 1.5 * (1 - 0.75 + 0.75 * count.total() / mean))
        expected.append(score)
    assert expected[2] == 0
    np.testing.assert_allclose(Searcher(2, 2).index(passages)(["cd q"])[0], expected, rtol=1e-5)
    places, scores = Bm25Index(character_grams(passages, 2, 2)).search(character_grams(["cd q"], 2, 2), 5)
    assert places[0].tolist() == [1, 0, -1, -1, -1]
    np.testing.assert_allclose(scores[0, :2], [expected[1], expected[0]], rtol=1e-5)
    assert np.isneginf(scores[0, 2:]).all()


def test_identity_names_the_lengths() -> None:
    assert Bm25(2, 4).identity != Bm25(3, 4).identity
