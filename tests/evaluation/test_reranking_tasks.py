"""Reranking tasks from pairs and from folders."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.beir_folders import beir
from tests.evaluation.held_out_pairs import held_out_pairs, source_of, texts_of

from retrofit.data.records import Pair
from retrofit.evaluation.reranking_tasks import (
    reranking_tasks_from_folder,
    reranking_tasks_from_pairs,
    with_candidates,
)
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.models.bm25 import character_grams


def pieces(text: str) -> list[str]:
    return character_grams([text], 3, 3)[0]


def naive_scores(query: str, corpus: dict[str, str]) -> dict[str, float]:
    """BM25 as Lucene counts it (k1 1.5, b 0.75)."""
    documents = {identifier: Counter(pieces(text)) for identifier, text in corpus.items()}
    mean = sum(sum(document.values()) for document in documents.values()) / len(documents)
    scores = dict.fromkeys(corpus, 0.0)
    for piece in pieces(query):
        holding = sum(piece in document for document in documents.values())
        weight = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for identifier, document in documents.items():
            length = 1.5 * (1 - 0.75 + 0.75 * sum(document.values()) / mean)
            scores[identifier] += weight * document[piece] / (document[piece] + length)
    return scores


def test_candidates_are_the_best_of_bm25_and_the_answers() -> None:
    corpus = {
        "a": "the lamp in the kitchen", "b": "a lamp", "c": "kitchen sink", "d": "お茶の時間", "e": "no such word",
    }  # fmt: skip
    queries = {"q1": "kitchen lamp", "q2": "お茶"}
    qrels = {"q1": {"e": 1}, "q2": {"d": 1}}
    task = RetrievalTask("s", "t", "en", "en", queries, corpus, qrels)
    (reranked,) = with_candidates([task], 2)
    assert reranked.kind == "reranking"
    scores = naive_scores(queries["q1"], corpus)
    best = sorted(corpus, key=lambda identifier: -scores[identifier])[:2]
    assert reranked.candidates is not None
    assert reranked.candidates["q1"] == sorted({*best, "e"})
    assert "d" in reranked.candidates["q2"]
    (whole,) = with_candidates([task], 50)
    assert whole.candidates == {"q1": sorted(corpus), "q2": sorted(corpus)}


def reranking(pairs: list[Pair], **options: Any) -> list[RetrievalTask]:
    arguments = {
        "suite": "s", "split": "test", "tasks": None, "languages": None, "candidates": 3, "max_queries": None,
        "max_passages": None, **options,
    }  # fmt: skip
    return reranking_tasks_from_pairs(source_of(pairs), **arguments)


def test_a_language_is_one_task_with_the_queries_of_all_tasks() -> None:
    pairs = [
        Pair("q1", ("a",), "help", "en", "en", "s", "g", "test"),
        Pair("q2", ("b",), "desc", "en", "en", "s", "h", "test"),
        Pair("q3", ("c",), "desc", "de", "de", "s", "g", "test"),
    ]
    german, english = reranking(pairs)
    assert (english.task, english.query_language) == ("reranking", "en")
    assert set(english.queries.values()) == {"q1", "q2"}
    assert {english.queries[query]: group for query, group in english.groups.items()} == {"q1": "g", "q2": "h"}
    assert set(english.corpus.values()) == {"a", "b"}
    assert list(german.queries.values()) == ["q3"]


@settings(max_examples=25)
@given(pairs=held_out_pairs(), count=st.integers(1, 12), order=st.randoms(use_true_random=False))
def test_answers_are_candidates_and_nothing_is_of_another_split(pairs: list[Pair], count: int, order: Any) -> None:
    tasks = reranking(pairs, candidates=count)
    for task in tasks:
        assert {*task.queries.values(), *task.corpus.values()} <= texts_of(pairs, "test")
        assert task.candidates is not None
        assert task.candidates.keys() == task.queries.keys() == task.qrels.keys()
        for query, found in task.candidates.items():
            assert list(found) == sorted(set(found))
            assert task.qrels[query].keys() <= set(found) <= task.corpus.keys()
            assert min(count, len(task.corpus)) <= len(found) <= count + len(task.qrels[query])
    shuffled = pairs.copy()
    order.shuffle(shuffled)
    assert reranking(shuffled, candidates=count) == tasks


def test_a_folder(tmp_path: Path) -> None:
    corpus = [{"_id": f"d{number}", "text": f"{word} {word}"} for number, word in enumerate(("tea", "milk", "wine"))]
    folder = beir(tmp_path, corpus, [{"_id": "q", "text": "tea"}], "q\td2\t1\n")
    (task,) = reranking_tasks_from_folder(folder, "s", candidates=1)
    assert task.candidates == {"q": ["d0", "d2"]}
