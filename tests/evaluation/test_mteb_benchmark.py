"""Benchmarks by name: up to the first download, and beyond it with data that is filled in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from retrofit.data.records import content_id
from retrofit.errors import UserError
from retrofit.evaluation.evaluate import evaluate
from retrofit.evaluation.metrics import METRICS
from retrofit.evaluation.mteb_benchmark import BenchmarkScores, benchmark_tasks, score_benchmark_task
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.precision import EncodingSettings

SETTINGS = EncodingSettings("float32", 512)
NAME = "MTEB(Multilingual, v2)"


def test_the_paper_s_benchmark_has_its_retrieval_tasks() -> None:
    tasks = benchmark_tasks(NAME, ["Retrieval"])
    names = {task.metadata.name for task in tasks}
    assert len(tasks) == len(names) == 18
    assert {"MIRACLRetrievalHardNegatives", "BelebeleRetrieval", "MLQARetrieval"} <= names
    assert {task.metadata.type for task in benchmark_tasks(NAME, ["STS", "Reranking"])} == {"STS", "Reranking"}


def test_a_task_of_several_is_each_of_them() -> None:
    names = {task.metadata.name for task in benchmark_tasks("MTEB(eng, v1)", ["Retrieval"])}
    assert {"ArguAna", "CQADupstackAndroidRetrieval"} <= names
    assert "CQADupstackRetrieval" not in names


@pytest.mark.parametrize(
    ("name", "task_types", "message"),
    [
        ("MTEB(Many, v9)", ["Retrieval"], r"evaluation\.benchmark\.name=MTEB\(Many, v9\): .*Did you mean"),
        (NAME, ["retrieval"], r"evaluation\.benchmark\.task_types=\['retrieval'\]: .* it has BitextM.*, Retrieval"),
    ],
)
def test_what_there_is_not_is_said(name: str, task_types: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        benchmark_tasks(name, task_types)
    assert "\n" not in str(raised.value)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of the hub, with nothing in it, where the hub is out of reach."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "datasets"


@pytest.mark.usefixtures("empty_cache")
def test_the_first_download_fails_with_one_line_that_says_what_to_set(encoder: BiEncoder) -> None:
    started = time.monotonic()
    for task in benchmark_tasks(NAME, ["Retrieval"])[:3]:
        with pytest.raises(UserError, match=rf"evaluation\.benchmark\.name: {task.metadata.name} cannot") as raised:
            next(score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny")))
        message = str(raised.value)
        assert "\n" not in message
        for part in ("Couldn't reach", "HF_HOME", "HF_HUB_OFFLINE=1", task.metadata.dataset["path"]):
            assert part in message
    assert time.monotonic() - started < 10


def two_subsets(name: str = "MIRACLRetrievalHardNegatives") -> tuple[Any, dict[str, RetrievalTask]]:
    """A task of the hub whose data is filled in for two languages, and the same as our records."""
    from datasets import Dataset

    (task,) = (task for task in benchmark_tasks(NAME, ["Retrieval"]) if task.metadata.name == name)
    task = type(task)()
    task.hf_subsets = ["de", "sw"]
    (split,) = task.eval_splits
    generator = np.random.default_rng(0)
    data: dict[str, Any] = {}
    records = {}
    for subset in task.hf_subsets:
        corpus = {f"{subset} {number}": f"Wort {number} {generator.integers(9)}" for number in range(30)}
        queries = {f"q{number}": f"Frage {number}" for number in range(6)}
        qrels = {query_id: {f"{subset} {generator.integers(30)}": 1} for query_id in queries}
        data[subset] = {
            split: {
                "corpus": Dataset.from_dict(
                    {"id": list(corpus), "title": ["Titel"] * 30, "text": list(corpus.values())}
                ),
                "queries": Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
                "relevant_docs": qrels,
                "top_ranked": None,
            }
        }
        titled = {passage_id: f"Titel {text}" for passage_id, text in corpus.items()}
        records[subset] = RetrievalTask("hub", name, subset, subset, queries, titled, qrels)
    task.dataset, task.data_loaded = data, True
    return task, records


def test_what_the_cache_of_the_hub_holds_is_not_asked_for(
    encoder: BiEncoder, empty_cache: Path, tmp_path: Path
) -> None:
    from datasets import Dataset, load_dataset

    (task,) = (task for task in benchmark_tasks(NAME, ["Retrieval"]) if task.metadata.name == "AILAStatutes")
    repository = task.metadata.dataset["path"].split("/")[1]
    tables = {
        "corpus": {"_id": ["p1", "p2"], "title": ["", ""], "text": ["ein Wort", "another one"]},
        "queries": {"_id": ["q1"], "text": ["ein Wort"]},
        "default": {"query-id": ["q1"], "corpus-id": ["p1"], "score": [1]},
    }
    folder = tmp_path / repository
    folder.mkdir()
    for config, columns in tables.items():
        Dataset.from_dict(columns).to_parquet(folder / f"{config}.parquet")
    configs = "".join(
        f"- {{config_name: {name}, data_files: [{{split: test, path: {name}.parquet}}]}}\n" for name in tables
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for config in tables:
        load_dataset(str(folder), config)
    (made,) = (path for path in empty_cache.iterdir() if path.is_dir())
    made.rename(empty_cache / f"mteb___{made.name}")
    (scores,) = score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny"))
    assert by_item(scores, "recall_at_100") == {"q1": 1.0}


def by_item(scores: BenchmarkScores, metric: str) -> dict[str, float]:
    table = scores.scores.items
    return {row["item_id"]: row["value"] for row in table.filter(pc.equal(table["metric"], metric)).to_pylist()}


def test_a_task_of_the_hub_is_scored_by_language_with_our_prompts(encoder: BiEncoder) -> None:
    task, records = two_subsets()
    found = list(score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny")))
    assert [(scores.task, scores.kind, scores.language, scores.n_items) for scores in found] == [
        ("MIRACLRetrievalHardNegatives", "retrieval", language, 6) for language in ("de", "sw")
    ]
    for scores in found:
        rows = evaluate(encoder, [records[scores.language]], SETTINGS).to_pylist()
        for metric in METRICS:
            expected = {row["query_id"]: row[metric] for row in rows}
            assert by_item(scores, metric) == pytest.approx(expected, abs=1e-6)
            assert scores.scores.values[metric] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
        assert scores.scores.values["main_score"] == pytest.approx(scores.scores.values["ndcg_at_10"], abs=1e-5)


def test_a_task_is_the_same_for_the_next_model(encoder: BiEncoder) -> None:
    task, _ = two_subsets()
    first, second = (list(score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny"))) for _ in range(2))
    assert [scores.scores.values["ndcg_at_10"] for scores in first] == [
        scores.scores.values["ndcg_at_10"] for scores in second
    ]
    assert all(one.scores.items.equals(other.scores.items) for one, other in zip(first, second, strict=True))


def test_splits_of_a_task_count_alike_whatever_their_size(encoder: BiEncoder) -> None:
    task, _ = two_subsets()
    (split,) = task.eval_splits
    task.hf_subsets = ["de"]
    whole = task.dataset["de"][split]
    first = {"queries": whole["queries"].select([0]), "relevant_docs": {"q0": whole["relevant_docs"]["q0"]}}
    task.dataset["de"]["part"] = {**whole, **first}
    task.metadata = task.metadata.model_copy(update={"eval_splits": [split, "part"]})
    (scores,) = score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny"))
    of_item = by_item(scores, "ndcg_at_10")
    assert len(of_item) == 7
    splits = [[value for item, value in of_item.items() if item.startswith(f"{name}/")] for name in (split, "part")]
    expected = np.mean([np.mean(values) for values in splits])
    assert abs(expected - np.mean(list(of_item.values()))) > 1e-3
    assert scores.scores.values["ndcg_at_10"] == pytest.approx(expected, abs=1e-5)


class Words:
    """A searcher of whom nothing is asked."""

    def index(self, passages: Sequence[str]) -> Any:
        return lambda queries: np.ones((len(queries), len(passages)))


def test_another_kind_is_scored_and_needs_vectors(encoder: BiEncoder) -> None:
    from datasets import Dataset

    (task,) = (task for task in benchmark_tasks(NAME, ["STS"]) if task.metadata.name == "STSB")
    task = type(task)()
    first = [f"erste {number}" for number in range(8)]
    second = [f"zweite {content_id(text) % 7}" for text in first]
    columns = {"sentence1": first, "sentence2": second, "score": [float(number % 5) for number in range(8)]}
    task.dataset = {split: Dataset.from_dict(columns) for split in task.eval_splits}
    task.data_loaded = True
    (scores,) = score_benchmark_task(task, TextEmbeddings(encoder, SETTINGS, "tiny"))
    assert (scores.kind, scores.language) == ("sts", "zh-Hans")
    assert scores.n_items == 8 * len(task.eval_splits)
    assert -1 <= scores.scores.values["spearman"] <= 1
    with pytest.raises(UserError, match=r"STSB.*needs a model that embeds texts; a lexical one"):
        next(score_benchmark_task(task, Words()))
