"""Suites of a configuration, and the tasks of a benchmark as suites."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.test_mteb_benchmark import NAME, SETTINGS, two_subsets

from retrofit.analysis.significance import cell_weights
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluated_suites import BenchmarkTask, Suite
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder


def test_a_task_of_a_benchmark_counts_once_however_many_subsets_it_has(encoder: BiEncoder) -> None:
    task, _ = two_subsets()
    found = list(BenchmarkTask(NAME, task).scores(TextEmbeddings(encoder, SETTINGS, "tiny")))
    assert all(scored.n_items > 1 for scored in found)
    cells = [scored.key for scored in found]
    assert {(cell.suite, cell.kind, cell.task) for cell in cells} == {
        (NAME, "retrieval", "MIRACLRetrievalHardNegatives")
    }
    assert [(cell.query_language, cell.document_language) for cell in cells] == [("de", "de"), ("sw", "sw")]
    assert cell_weights([*(cell.task for cell in cells), "another"]).tolist() == [0.25, 0.25, 0.5]


def test_who_trained_on_pairs_trained_for_the_tasks_that_are_made_of_them(corpus: Path) -> None:
    reranking = {
        "kind": "reranking", "source": "own", "tasks": ["field_help", "title_body"], "languages": None,
        "candidates": 5, "max_queries": None, "max_passages": None,
    }  # fmt: skip
    retrieval = {
        "kind": "retrieval", "source": "own", "tasks": ["field_help"], "pool": "task", "max_queries": None,
        "max_passages": None,
    }  # fmt: skip
    sources = {"own": PairSource.open(corpus)}
    strata = [("field_help", "de", "de"), ("bitext", "en", "ja")]
    assert Suite("s", reranking, sources).trained_under(strata) == {("reranking", "de", "de")}
    assert Suite("s", reranking, sources).trained_under(strata[1:]) == set()
    assert Suite("s", retrieval, sources).trained_under(strata) == set()
