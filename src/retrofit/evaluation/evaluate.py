"""Measure a bi-encoder on retrieval tasks: encode each text once, search exactly, score every query."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from retrofit.data.records import content_id
from retrofit.evaluation.metrics import METRICS, score_run
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.models.bi_encoder import BiEncoder, Kind
from retrofit.models.precision import EncodingSettings

TOP_K = 100

RESULT_SCHEMA = pa.schema(
    [
        pa.field("suite", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("query_language", pa.string(), nullable=False),
        pa.field("document_language", pa.string(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        *(pa.field(metric, pa.float64(), nullable=False) for metric in METRICS),
        pa.field("top_passage_ids", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row a query: its scores and the ids of its five best passages."""

log = logging.getLogger(__name__)


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
    embedded = {
        "query": _encode(encoder, [task.queries for task in tasks], "query", settings, label),
        "passage": _encode(encoder, [task.corpus for task in tasks], "passage", settings, label),
    }
    rows = []
    for task in tasks:
        run = search(embedded["query"], embedded["passage"], task)
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
                    "top_passage_ids": best,
                    **{metric: scores[metric][query_id] for metric in METRICS},
                }
            )
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


@dataclass(frozen=True)
class EmbeddedTexts:
    """Embeddings of distinct texts.

    Attributes:
        row_of: row by content hash of the text.
        vectors: float32 ``[texts, dimension]``, unit length.
    """

    row_of: Mapping[int, int]
    vectors: np.ndarray

    def rows(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors of texts, float32 ``[len(texts), dimension]``."""
        return torch.from_numpy(self.vectors[[self.row_of[content_id(text)] for text in texts]])


def _encode(
    encoder: BiEncoder, groups: Sequence[Mapping[str, str]], kind: Kind, settings: EncodingSettings, label: str
) -> EmbeddedTexts:
    distinct = {content_id(text): text for group in groups for text in group.values()}
    log.info("%s: encoding %d %s texts", label, len(distinct), kind)
    vectors = encoder.encode(
        list(distinct.values()), kind, settings.token_budget, settings.precision, label=f"{label}, {kind}"
    )
    return EmbeddedTexts({key: row for row, key in enumerate(distinct)}, vectors)


def search(queries: EmbeddedTexts, passages: EmbeddedTexts, task: RetrievalTask) -> dict[str, dict[str, float]]:
    """Return the score of the ``TOP_K`` best passages of each query, best first, by passage id by query id.

    Equal scores are ordered as :func:`retrofit.evaluation.metrics.ranking` does, at the cut as well.
    """
    # Columns in descending order of id: among equal scores a stable sort then keeps the larger id first.
    passage_ids = sorted(task.corpus, reverse=True)
    vectors = passages.rows([task.corpus[passage_id] for passage_id in passage_ids])
    scores = queries.rows(list(task.queries.values())) @ vectors.T
    best = scores.sort(dim=1, descending=True, stable=True)
    columns, values = best.indices[:, :TOP_K].tolist(), best.values[:, :TOP_K].tolist()
    return {
        query_id: {passage_ids[column]: score for column, score in zip(found, its_scores, strict=True)}
        for query_id, found, its_scores in zip(task.queries, columns, values, strict=True)
    }


def write_results(path: Path, results: pa.Table) -> None:
    """Write per-query results as Parquet."""
    pq.write_table(results.cast(RESULT_SCHEMA), path, compression="zstd")


def read_results(path: Path) -> pa.Table:
    """Return the per-query results of a Parquet file."""
    return pq.read_table(path, schema=RESULT_SCHEMA)
