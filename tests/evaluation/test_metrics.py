"""The metrics against their definitions, and against pytrec_eval itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.evaluation.metrics import METRICS, score_run

Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]


def naive(grades: dict[str, int], scores: dict[str, float]) -> dict[str, float]:
    """The metrics by their definitions; no two scores may be equal."""
    ranking = sorted(scores, key=lambda passage_id: -scores[passage_id])

    def discounted(gains: list[int]) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:10], start=1))

    gains = [max(0, grades.get(passage_id, 0)) for passage_id in ranking]
    ideal = discounted(sorted((max(0, grade) for grade in grades.values()), reverse=True))
    relevant = {passage_id for passage_id, grade in grades.items() if grade > 0}
    ranks = [rank for rank, gain in enumerate(gains[:100], start=1) if gain > 0]
    precisions = [number / rank for number, rank in enumerate(ranks, start=1)]
    return {
        "ndcg_at_10": discounted(gains) / ideal if ideal else 0.0,
        "mrr_at_10": 1 / ranks[0] if ranks and ranks[0] <= 10 else 0.0,
        "map_at_100": sum(precisions) / len(relevant) if relevant else 0.0,
        "recall_at_100": len(relevant & set(ranking[:100])) / len(relevant) if relevant else 0.0,
    }


PASSAGES = [f"p{number}" for number in range(130)]


def grades(largest: int) -> st.SearchStrategy[dict[str, int]]:
    answers = st.dictionaries(st.sampled_from(PASSAGES[:20]), st.integers(0, largest), min_size=1, max_size=6)
    return answers.filter(lambda grades: max(grades.values()) > 0)


RANKING = st.lists(st.sampled_from(PASSAGES[:25]), unique=True, min_size=1, max_size=25)


@given(st.dictionaries(st.sampled_from("qrs"), st.tuples(grades(3), RANKING), min_size=1))
def test_metrics_are_those_of_their_definitions(queries: dict[str, tuple[dict[str, int], list[str]]]) -> None:
    qrels = {query: judged for query, (judged, _) in queries.items()}
    run = {
        query: {passage_id: 1 - rank / 64 for rank, passage_id in enumerate(ranking)}
        for query, (_, ranking) in queries.items()
    }
    scores = score_run(qrels, run)
    assert set(scores) == set(METRICS)
    for query in queries:
        for metric, expected in naive(qrels[query], run[query]).items():
            assert scores[metric][query] == pytest.approx(expected, abs=1e-9)


def test_several_positives_by_hand() -> None:
    run = {"q": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}}
    scores = score_run({"q": {"b": 1, "d": 1, "missing": 1}}, run)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert scores["ndcg_at_10"]["q"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert scores["mrr_at_10"]["q"] == pytest.approx(1 / 2)
    assert scores["map_at_100"]["q"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert scores["recall_at_100"]["q"] == pytest.approx(2 / 3)


def test_the_cut_offs() -> None:
    def run_with(rank: int) -> Run:
        return {"q": {PASSAGES[place] if place != rank else "answer": 1 - place / 256 for place in range(1, 121)}}

    expected = {
        10: (1 / math.log2(11), 0.1, 1 / 10, 1), 11: (0, 0, 1 / 11, 1), 100: (0, 0, 1 / 100, 1), 101: (0, 0, 0, 0),
    }  # fmt: skip
    for rank, values in expected.items():
        scores = score_run({"q": {"answer": 1}}, run_with(rank))
        assert [scores[metric]["q"] for metric in METRICS] == pytest.approx(list(values)), rank


def test_queries_that_found_nothing_score_zero_and_unjudged_ones_do_not_count() -> None:
    scores = score_run(
        {"q": {"a": 1}, "r": {"a": 1}, "s": {"a": 1}}, {"q": {"a": 1.0}, "s": {}, "unjudged": {"a": 1.0}}
    )
    for metric in METRICS:
        assert scores[metric] == {"q": 1.0, "r": 0.0, "s": 0.0}


# Few values, so that many are equal; two that are equal in the single precision of trec_eval alone; and any.
VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 0.5 + 1e-12]) | st.floats(-1, 1)
SCORED = st.dictionaries(st.sampled_from(PASSAGES), VALUES, min_size=1)


@given(st.dictionaries(st.sampled_from("qrs"), st.tuples(grades(2), SCORED), min_size=1))
def test_metrics_are_those_of_pytrec_eval_ties_included(
    queries: dict[str, tuple[dict[str, int], dict[str, float]]],
) -> None:
    import pytrec_eval

    qrels: Qrels = {query: judged for query, (judged, _) in queries.items()}
    run: Run = {query: scores for query, (_, scores) in queries.items()}
    measures = {"ndcg_cut.10", "recip_rank", "map_cut.100", "recall.100"}
    measured = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    scores = score_run(qrels, run)
    assert set(measured) == set(queries)
    for query, expected in measured.items():
        first = expected["recip_rank"]  # has no cut-off of its own
        assert scores["ndcg_at_10"][query] == pytest.approx(expected["ndcg_cut_10"], abs=1e-9)
        assert scores["mrr_at_10"][query] == pytest.approx(first if first >= 0.1 - 1e-9 else 0, abs=1e-9)
        assert scores["map_at_100"][query] == pytest.approx(expected["map_cut_100"], abs=1e-9)
        assert scores["recall_at_100"][query] == pytest.approx(expected["recall_100"], abs=1e-9)
