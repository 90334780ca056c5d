"""Suites of a configuration, and the tasks of a benchmark as suites."""

from __future__ import annotations

from tests.evaluation.test_mteb_benchmark import NAME, SETTINGS, two_subsets

from retrofit.analysis.significance import cell_weights
from retrofit.evaluation.evaluated_suites import BenchmarkTask
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder


def test_a_task_of_a_benchmark_counts_once_however_many_subsets_it_has(encoder: BiEncoder) -> None:
    task, _ = two_subsets()
    cells = [cell for cell, _ in BenchmarkTask(NAME, task).scores(TextEmbeddings(encoder, SETTINGS, "tiny"))]
    assert {(cell.suite, cell.kind, cell.task) for cell in cells} == {
        (NAME, "retrieval", "MIRACLRetrievalHardNegatives")
    }
    assert [(cell.query_language, cell.document_language) for cell in cells] == [("de", "de"), ("sw", "sw")]
    assert cell_weights([*(cell.task for cell in cells), "another"]).tolist() == [0.25, 0.25, 0.5]
