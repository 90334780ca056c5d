"""The three queries that are shown: chosen by their scores, with the texts that belong to them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrofit.data.records import PASSAGE_SCHEMA, Pair, Passage, content_id, shown_id, to_table
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import RESULT_SCHEMA
from retrofit.training.examples import example_queries

PASSAGES = ["the lamp", "the door", "the clock"]
PAIRS = [Pair(f"query {n}", (PASSAGES[n % 3],), "field_help", "en", "en", "s", f"g{n}", "test") for n in range(5)]
SOURCE = PairSource(Path("made up"), to_table(PAIRS), None, {})


def results(scores: list[float], best: str, suite: str = "held_out") -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            "suite": suite,
            "task": pair.task,
            "query_language": "en",
            "document_language": "en",
            "query_id": shown_id(pair.query_id),
            "ndcg_at_10": score,
            "mrr_at_10": score,
            "map_at_100": 0.0,
            "recall_at_100": 1.0,
            "top_passage_ids": [shown_id(content_id(best))],
        }
        for pair, score in zip(PAIRS, scores, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


def test_one_gained_one_stayed_and_one_lost() -> None:
    both = {
        "base": results([0.2, 0.9, 0.5, 1.0, 0.4], "the lamp"),
        "retrofitted": results([0.9, 0.1, 0.5, 1.0, 0.6], "the door"),
    }
    examples = example_queries(SOURCE, both)
    assert [(example["kind"], example["query"]) for example in examples] == [
        ("gained", "query 0"), ("unchanged", "query 2"), ("lost", "query 1"),
    ]  # fmt: skip
    gained, _, lost = examples
    assert gained["ndcg_at_10"] == {"base": 0.2, "retrofitted": 0.9}
    assert gained["passages"]["base"] == [{"text": "the lamp", "relevant": True}]
    assert gained["passages"]["retrofitted"] == [{"text": "the door", "relevant": False}]
    assert lost["passages"]["retrofitted"] == [{"text": "the door", "relevant": True}]


def test_nothing_is_shown_that_did_not_happen() -> None:
    better = {"base": results([0.1] * 5, "the lamp"), "retrofitted": results([0.2, 0.3, 0.4, 0.5, 0.6], "the lamp")}
    assert [example["kind"] for example in example_queries(SOURCE, better)] == ["gained"]
    perfect = {"base": results([1.0] * 5, "the lamp"), "retrofitted": results([1.0] * 5, "the lamp")}
    assert example_queries(SOURCE, perfect) == []
    elsewhere = {model: results([0.5] * 5, "the lamp", "retention_x") for model in ("base", "retrofitted")}
    assert example_queries(SOURCE, elsewhere) == []


def test_passages_beyond_the_pairs_are_shown_too() -> None:
    further = pa.Table.from_pylist([Passage("the roof", "en", "s").row()], schema=PASSAGE_SCHEMA)
    both = {"base": results([0.2] * 5, "the roof"), "retrofitted": results([0.9] * 5, "the door")}
    (example,) = example_queries(replace(SOURCE, passages=further), both)
    assert example["passages"]["base"] == [{"text": "the roof", "relevant": False}]
