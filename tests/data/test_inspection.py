"""The data card's content: counted by hand on a small selection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrofit.data.curation.artefact import REMOVED_SCHEMA, Curation
from retrofit.data.inspection import inspect_selection
from retrofit.data.records import PASSAGE_SCHEMA, Pair, Passage, Split, to_table
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData


def pair(query: str, *positives: str, language: str = "de", split: Split = "train", task: str = "help") -> Pair:
    return Pair(query, positives, task, language, language, "made up", query, split, ("no",) if query == "c" else ())


PAIRS = [
    pair("a", "x", "y"),
    pair("b", "x" * 70),
    pair("c", "x"),
    pair("a", "z", task="title"),
    pair("d", "w" * 400, language="en"),
    pair("e", "v", split="test"),
    pair("left out", "u"),
]
REMOVED = {
    "row": 6, "reason": "language", "field": "query", "text": "left out", "evaluation_set": "", "matched": "",
    "score": 0.9,
}  # fmt: skip


def letters(texts: Sequence[str], kind: str) -> list[list[int]]:
    return [[0] * len(text) for text in texts]


@pytest.fixture
def card() -> dict[str, Any]:
    passages = pa.Table.from_pylist([Passage("t", "de", "s").row()], schema=PASSAGE_SCHEMA)
    source = PairSource(Path("0123"), to_table(PAIRS), passages, {"refused": {"empty text": 3}})
    rows = np.arange(5)
    removed = pa.Table.from_pylist([REMOVED], schema=REMOVED_SCHEMA)
    data = TrainingData(source, Curation(rows, removed, {"removed": {"language": 1}}), rows)
    return inspect_selection(data, "mine", letters, sample=10, examples=1, seed=0)


def test_the_card_is_json(card: dict[str, Any]) -> None:
    assert json.loads(json.dumps(card)) == card


def test_pairs_are_counted_by_task_and_language(card: dict[str, Any]) -> None:
    assert (card["name"], card["fingerprint"], card["pairs"], card["passages_besides"]) == ("mine", "0123", 5, 1)
    assert {(row["task"], row["language"]): row["pairs"] for row in card["selected"]} == {
        ("help", "de"): 3, ("help", "en"): 1, ("title", "de"): 1,
    }  # fmt: skip
    assert {(row["split"], row["task"]): row["pairs"] for row in card["by_split"]} == {
        ("train", "help"): 5, ("train", "title"): 1, ("test", "help"): 1,
    }  # fmt: skip


def test_recurring_texts_are_counted_once(card: dict[str, Any]) -> None:
    assert card["texts"] == {
        "queries": 4,
        "queries_in_several_pairs": 1,
        "passages": 5,
        "passages_in_several_pairs": 1,
        "pairs_with_several_positives": 1,
        "positives_per_pair": {"1": 4, "2": 1, "3": 0, "4": 0, "5+": 0},
        "pairs_with_given_negatives": 1,
    }


def test_tokens_are_those_of_the_tokenizer(card: dict[str, Any]) -> None:
    rows = {(row["task"], row["language"], row["kind"]): row for row in card["tokens"]}
    german = rows["help", "de", "passage"]
    assert (german["texts"], german["median"], german["longest"]) == (3, 1, 70)
    assert german["longer_than"] == {"64": 1, "128": 0, "256": 0, "512": 0}
    assert german["histogram"]["0–7"] == 2
    assert german["histogram"]["64–127"] == 1
    assert rows["help", "en", "passage"]["longer_than"] == {"64": 1, "128": 1, "256": 1, "512": 0}
    assert rows["help", "en", "query"]["longest"] == 1
    assert all(sum(row["histogram"].values()) == row["texts"] for row in rows.values())


def test_what_was_removed_and_examples_are_shown(card: dict[str, Any]) -> None:
    (removed,) = card["removed_examples"]
    assert (removed["reason"], removed["text"]) == ("language", "left out")
    assert {(row["task"], row["language"]) for row in card["examples"]} == {
        ("help", "de"), ("help", "en"), ("title", "de"),
    }  # fmt: skip
    (long,) = (row for row in card["examples"] if row["language"] == "en")
    assert len(long["positive"]) == 300
    assert long["positive"].endswith("w…")
