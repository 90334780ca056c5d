"""Measure a bi-encoder on retrieval tasks: encode each text once, search exactly, score every query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrofit.evaluation.exact_search import inner_products, search
from retrofit.evaluation.metrics import METRICS, score_run
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.precision import EncodingSettings

TOP_K = 100

RESULT_SCHEMA = pa.schema(
    [
        pa.field("suite", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("query_language", pa.string(), nullable=False),
        pa.field("document_language", pa.string(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query_group", pa.string(), nullable=False),
        *(pa.field(metric, pa.float64(), nullable=False) for metric in METRICS),
        pa.field("top_passage_ids", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row a query: what it belongs together with others by, its scores and the ids of its five best passages."""


def evaluate(
    encoder: BiEncoder, tasks: Sequence[RetrievalTask], settings: EncodingSettings, label: str = "evaluation"
) -> pa.Table:
    """Return the scores of every query of every task, a table of ``RESULT_SCHEMA``.

    A text that stands in several tasks is encoded once. The search is exact.

    Args:
        encoder: the model.
        tasks: what to search for in what.
        settings: how to encode.
        label: named in the log lines.
    """
    embeddings = TextEmbeddings(encoder, settings, label)
    embeddings.add((text for task in tasks for text in task.queries.values()), "query")
    embeddings.add((text for task in tasks for text in task.passages), "passage")
    rows = []
    for task in tasks:
        run = search_task(embeddings, task)
        scores = score_run(task.qrels, run)
        for query_id in task.queries:
            best = list(run[query_id])[:5]
            rows.append(
                {
                    "suite": task.suite,
                    "task": task.task,
                    "query_language": task.query_language,
                    "document_language": task.document_language,
                    "query_id": query_id,
                    "query_group": task.groups.get(query_id, query_id),
                    "top_passage_ids": best,
                    **{metric: scores[metric][query_id] for metric in METRICS},
                }
            )
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


def search_task(embeddings: TextEmbeddings, task: RetrievalTask) -> dict[str, dict[str, float]]:
    """Return the score of the ``TOP_K`` best passages of each query, best first, by passage id by query id.

    Equal scores are ordered as :func:`retrofit.evaluation.metrics.ranking` does, at the cut as well.
    """
    queries = embeddings.vectors(task.queries.values(), "query")
    scores = inner_products(embeddings.vectors(task.passages, "passage"))
    found = search(lambda part: scores(queries[part]), len(queries), list(task.corpus), TOP_K)
    return dict(zip(task.queries, found, strict=True))


def write_results(path: Path, results: pa.Table) -> None:
    """Write per-query results as Parquet."""
    pq.write_table(results.cast(RESULT_SCHEMA), path, compression="zstd")


def read_results(path: Path) -> pa.Table:
    """Return the per-query results of a Parquet file."""
    return pq.read_table(path, schema=RESULT_SCHEMA)
