"""Evaluation: exact search, every text encoded once, and results that are what score_run says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrofit.artefacts import ArtefactStore
from retrofit.data.records import content_id, shown_id
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import (
    RESULT_SCHEMA,
    TOP_K,
    evaluate,
    read_results,
    search_task,
    write_results,
)
from retrofit.evaluation.metrics import METRICS, score_run
from retrofit.evaluation.suites import evaluate_suites
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.precision import EncodingSettings

SETTINGS = EncodingSettings("float32", 512)


class Drawn:
    """An encoder whose vectors are drawn for each text."""

    def encode(self, texts: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
        rows = [np.random.default_rng(content_id(text)).normal(size=8) for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("size", [3, TOP_K, 250])
def test_search_is_exact(size: int) -> None:
    encoder = Drawn()
    corpus = {f"id {row}": f"p{row}" for row in np.random.default_rng(2).permutation(300)[:size]}
    queries = {"1": "z", "2": "x"}
    task = RetrievalTask("s", "t", "en", "en", queries, corpus, {"1": {}, "2": {}})
    run = search_task(TextEmbeddings(encoder, SETTINGS, "drawn"), task)
    assert list(run) == ["1", "2"]
    for query_id, text in queries.items():
        cosines = encoder.encode(list(corpus.values())) @ encoder.encode([text])[0]
        scores = dict(zip(corpus, cosines.tolist(), strict=True))
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:TOP_K]
        assert list(run[query_id]) == best
        assert run[query_id] == pytest.approx({key: scores[key] for key in best}, abs=1e-6)


class Recording:
    """An encoder that remembers what it was asked to encode."""

    def __init__(self, encoder: BiEncoder) -> None:
        self.encoder = encoder
        self.asked: dict[str, list[str]] = {"query": [], "passage": []}
        self.pooling, self.prompts, self.max_length = encoder.pooling, encoder.prompts, encoder.max_length

    def encode(self, texts: Sequence[str], kind: Any, *arguments: Any, **options: Any) -> np.ndarray:
        self.asked[kind] += texts
        return self.encoder.encode(texts, kind, *arguments, **options)


@pytest.fixture
def tasks(corpus: Path) -> list[RetrievalTask]:
    return tasks_from_pairs(
        PairSource.open(corpus), "held_out", "test", ["field_help", "title_body", "bitext"], "language", None, None
    )


def test_every_text_is_encoded_once(encoder: BiEncoder, tasks: list[RetrievalTask]) -> None:
    recording: Any = Recording(encoder)
    evaluate(recording, tasks, SETTINGS)
    for kind, groups in (
        ("query", [task.queries for task in tasks]),
        ("passage", [task.corpus for task in tasks]),
    ):
        asked = recording.asked[kind]
        assert len(asked) == len(set(asked))
        assert set(asked) == {text for group in groups for text in group.values()}
    assert sum(len(task.corpus) for task in tasks) > len(recording.asked["passage"])


def test_results_are_those_of_every_task_on_its_own(encoder: BiEncoder, tasks: list[RetrievalTask]) -> None:
    results = evaluate(encoder, tasks, SETTINGS)
    assert results.schema.equals(RESULT_SCHEMA)
    rows = results.to_pylist()
    assert len(rows) == sum(len(task.queries) for task in tasks)
    found = {(row["task"], row["query_language"], row["document_language"], row["query_id"]): row for row in rows}
    assert len(found) == len(rows)
    for task in tasks:
        queries = encoder.encode(list(task.queries.values()), "query")
        passages = encoder.encode(list(task.corpus.values()), "passage")
        scores = queries @ passages.T
        ids = list(task.corpus)
        run = {
            query_id: dict(zip(ids, map(float, row), strict=True))
            for query_id, row in zip(task.queries, scores, strict=True)
        }
        expected = score_run(task.qrels, run)
        for query_id in task.queries:
            row = found[task.task, task.query_language, task.document_language, query_id]
            assert row["suite"] == "held_out"
            assert row["query_group"] == task.groups[query_id]
            for metric in METRICS:
                assert row[metric] == pytest.approx(expected[metric][query_id], abs=1e-6)
            best = sorted(run[query_id], key=run[query_id].__getitem__, reverse=True)[:5]
            by_score = [run[query_id][passage_id] for passage_id in row["top_passage_ids"]]
            assert by_score == pytest.approx([run[query_id][passage_id] for passage_id in best], abs=1e-5)


def test_a_query_that_equals_its_passage_is_found(load_tiny: Any) -> None:
    encoder = load_tiny(prompts={"query": "", "passage": ""})
    texts = {
        shown_id(content_id(text)): text for text in ("the lamp", "お茶の時間", "Ein längerer Satz über Kaffee", "zz")
    }
    qrels = {key: {key: 1} for key in texts}
    task = RetrievalTask("s", "same", "en", "en", texts, texts, qrels)
    rows = evaluate(encoder, [task], SETTINGS).to_pylist()
    assert [row["top_passage_ids"][0] for row in rows] == list(texts)
    assert all(row[metric] == 1 for row in rows for metric in METRICS)


def test_results_survive_parquet(encoder: BiEncoder, tasks: list[RetrievalTask], tmp_path: Path) -> None:
    results = evaluate(encoder, tasks[:2], SETTINGS)
    write_results(tmp_path / "results.parquet", results)
    assert read_results(tmp_path / "results.parquet").equals(results)


SUITES: dict[str, dict[str, Any]] = {
    "held_out": {
        "kind": "retrieval", "source": "own", "tasks": ["field_help"], "pool": "language", "max_queries": 2,
        "max_passages": None,
    },
    "retention_bitext": {
        "kind": "retrieval", "source": "own", "tasks": ["bitext"], "pool": "task", "max_queries": 2, "max_passages": 5,
    },
}  # fmt: skip


def suites(encoder: Any, store: ArtefactStore, source: PairSource, **changes: Any) -> pa.Table:
    arguments = {
        "weights": "w", "sources": {"own": source}, "suites": SUITES, "split": "test", "settings": SETTINGS,
        "store": store, "label": "tiny", **changes,
    }  # fmt: skip
    return evaluate_suites(encoder, **arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "other"},
        {"split": "validation"},
        {"settings": EncodingSettings("float32", 1024)},
        {"suites": {name: suite | {"max_queries": 3} for name, suite in SUITES.items()}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_suites_are_measured_once_and_again_when_something_changes(
    encoder: BiEncoder, corpus: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    source, store, recording = PairSource.open(corpus), ArtefactStore(tmp_path), Recording(encoder)
    first = suites(recording, store, source)
    assert set(first["suite"].to_pylist()) == set(SUITES)
    encoded = len(recording.asked["query"])
    assert encoded > 0
    assert suites(recording, store, source, label="another name").equals(first)
    assert len(recording.asked["query"]) == encoded
    suites(recording, store, source, **changes)
    assert len(recording.asked["query"]) > encoded


def test_suites_of_another_source_are_measured_again(encoder: BiEncoder, corpus: Path, tmp_path: Path) -> None:
    first, store, recording = PairSource.open(corpus), ArtefactStore(tmp_path), Recording(encoder)
    other = replace(first, folder=tmp_path / "another")
    two: dict[str, dict[str, Any]] = {
        "held_out": SUITES["held_out"],
        "retention_bitext": SUITES["retention_bitext"] | {"source": "other"},
    }
    suites(recording, store, first)
    encoded = len(recording.asked["query"])
    suites(recording, store, first, sources={"own": first, "other": first}, suites=two)
    assert len(recording.asked["query"]) == encoded
    suites(recording, store, first, sources={"own": first, "other": other}, suites=two)
    assert len(recording.asked["query"]) > encoded


def test_equal_scores_are_ordered_alike_in_the_metrics_and_in_the_passages_shown() -> None:
    class Constant:
        def encode(self, texts: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
            return np.full((len(texts), 4), 0.5, dtype=np.float32)

    encoder: Any = Constant()
    ids = [f"p{number}" for number in range(9)]
    task = RetrievalTask(
        "s", "t", "en", "en", {f"q {answer}": f"query {answer}" for answer in ids},
        {passage_id: f"text {passage_id}" for passage_id in ids}, {f"q {answer}": {answer: 1} for answer in ids},
    )  # fmt: skip
    for row in evaluate(encoder, [task], SETTINGS).to_pylist():
        # pytrec_eval puts the larger id first.
        assert row["top_passage_ids"] == ["p8", "p7", "p6", "p5", "p4"]
        rank = 9 - int(row["query_id"][-1])
        assert row["ndcg_at_10"] == pytest.approx(1 / np.log2(rank + 1))
        assert row["mrr_at_10"] == pytest.approx(1 / rank)
