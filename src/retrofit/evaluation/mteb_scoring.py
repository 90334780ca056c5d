"""Tasks of every kind scored by mteb's own code, so that values compare with its leaderboard."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retrofit.data.records import content_id, shown_id
from retrofit.errors import UserError
from retrofit.evaluation.mteb_models import encode_options, mteb_model
from retrofit.evaluation.mteb_tasks import SPLIT, label_numbers, mteb_task
from retrofit.evaluation.tasks import (
    BitextTask,
    ClassificationTask,
    ClusteringTask,
    RetrievalTask,
    SimilarityTask,
    Task,
)
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bm25 import LexicalSearcher

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

LEXICAL_KINDS = ("retrieval", "reranking")
"""The kinds of task that a searcher without vectors can be measured on."""

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""One row an item and metric."""

_PER_QUERY = {"ndcg_at_10": "ndcg_cut_10", "map_at_100": "map_cut_100", "recall_at_100": "recall_100"}
"""Metrics of every query and how trec_eval spells them; that of MRR has no cut."""

_PER_CANDIDATES = {"ndcg_at_10": "ndcg_cut_10", "map_at_1000": "map_cut_1000"}
"""Likewise of reranking."""


@dataclass(frozen=True)
class TaskScores:
    """What a model reached on a task.

    Attributes:
        values: metrics as mteb reports them, by mteb's name. mteb rounds means over queries to five digits; where the
            items have a metric, its value is their mean, unrounded.
        items: a table of ``ITEM_SCHEMA``. Items are queries (retrieval, reranking), sentences (bitext), pairs (sts:
            ``cosine`` and ``gold``), mteb's repetitions (clustering) or texts (classification: share of mteb's
            repetitions in which the label is right).
    """

    values: Mapping[str, float]
    items: pa.Table

    @property
    def n_items(self) -> int:
        """How many items there are; each has a row for every metric."""
        return len(set(self.items["item_id"].to_pylist()))


def score_task(task: Task, model: TextEmbeddings | LexicalSearcher) -> TaskScores:
    """Return what a model reaches on a task, by mteb's code.

    Args:
        task: what to measure.
        model: embeddings, which are made for texts that have none yet and kept for other tasks; or what searches by
            words, for the ``LEXICAL_KINDS``.

    Raises:
        UserError: the task needs vectors and the model has none.
    """
    if task.kind not in LEXICAL_KINDS and not isinstance(model, TextEmbeddings):
        raise UserError(
            f"models: {task.suite}, {task.task} ({task.kind}) needs a model that embeds texts; a lexical one can be "
            f"measured on {' and '.join(LEXICAL_KINDS)} only"
        )
    if isinstance(model, TextEmbeddings):
        _embed_at_once(task, model)
    made = mteb_task(task)
    with tempfile.TemporaryDirectory() as folder, quietly():
        if isinstance(task, RetrievalTask):
            kept = keep_queries(made)
            scores = made.evaluate(mteb_model(model), SPLIT, encode_kwargs=encode_options())["default"]
            rows = kept["default"]
        else:
            scores = made.evaluate(
                mteb_model(model), SPLIT, encode_kwargs=encode_options(), prediction_folder=Path(folder)
            )["default"]
            predictions = json.loads((Path(folder) / made.prediction_file_name).read_text(encoding="utf-8"))
            rows = _items(task, scores, predictions["default"][SPLIT])
    return task_scores(scores, rows)


ItemRows = list[tuple[str, str, float]]
"""Item, metric and value."""


def task_scores(scores: Mapping[str, Any], rows: ItemRows) -> TaskScores:
    """Return mteb's scores, those that are single numbers, and the items behind them."""
    values = {metric: float(value) for metric, value in scores.items() if isinstance(value, int | float)}
    by_metric: dict[str, list[float]] = {}
    for _, metric, value in rows:
        by_metric.setdefault(metric, []).append(value)
    means = {metric: sum(found) / len(found) for metric, found in by_metric.items() if metric in values}
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    items = pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, ITEM_SCHEMA, strict=True)], schema=ITEM_SCHEMA
    )
    return TaskScores(values | means, items)


def keep_queries(task: AbsTask) -> dict[str, ItemRows]:
    """Make a retrieval task of mteb keep what every query scores; return where, by the task's subset.

    Splits of a subset that are evaluated one after another are kept together.
    """
    from mteb._evaluators.retrieval_metrics import mrr

    kept: dict[str, ItemRows] = {}
    spelled = _PER_CANDIDATES if task.metadata.type == "Reranking" else _PER_QUERY

    def keep(
        scores: Mapping[str, Mapping[str, float]],
        qrels: Mapping[str, Mapping[str, int]],
        results: Mapping[str, Mapping[str, float]],
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        prefix = "" if len(task.eval_splits) == 1 else f"{hf_split}/"
        reciprocal_ranks = dict(zip(results, mrr(qrels, results, [10])["MRR@10"], strict=True))
        rows = kept.setdefault(hf_subset, [])
        for query_id, found in scores.items():
            item = f"{prefix}{query_id}"
            rows += [(item, metric, found[trec]) for metric, trec in spelled.items()]
            rows.append((item, "mrr_at_10", reciprocal_ranks[query_id]))
        own: dict[str, float] = specific(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)
        return own

    specific = task.task_specific_scores
    task.task_specific_scores = keep
    return kept


def _embed_at_once(task: Task, embeddings: TextEmbeddings) -> None:
    """Encode all texts of a task together; mteb asks for them in parts."""
    match task:
        case RetrievalTask():
            embeddings.add(task.queries.values(), "query")
            embeddings.add(task.passages, "passage")
        case BitextTask():
            embeddings.add([*task.sentences, *task.translations], "query")
        case SimilarityTask():
            embeddings.add([*task.first, *task.second], "query")
        case ClusteringTask():
            embeddings.add(task.texts, "query")
        case ClassificationTask():
            embeddings.add(task.texts, "query")  # of the texts to learn from, mteb draws a few


def _items(task: Task, scores: Mapping[str, Any], predictions: Any) -> ItemRows:
    """Return the items of a task that is not retrieval, out of what mteb saved of its predictions."""
    match task:
        case BitextTask():
            (found,) = predictions.values()
            return [
                (_text_id(sentence), "accuracy", float(neighbour["corpus_id"] == place))
                for place, (sentence, neighbour) in enumerate(zip(task.sentences, found, strict=True))
            ]
        case SimilarityTask():
            pairs = enumerate(zip(predictions["similarity_scores"], task.scores, strict=True))
            return [
                (str(place), metric, float(value))
                for place, both in pairs
                for metric, value in zip(("cosine", "gold"), both, strict=True)
            ]
        case ClusteringTask():
            (repetitions,) = scores["v_measures"].values()
            return [(str(number), "v_measure", value) for number, value in enumerate(repetitions)]
        case ClassificationTask():
            number_of = label_numbers(task)
            return [
                (_text_id(text), "accuracy", sum(label == number_of[right] for label in labels) / len(labels))
                for text, right, labels in zip(task.texts, task.labels, _transposed(predictions), strict=True)
            ]
        case _:
            raise TypeError(f"{type(task).__name__} has no predictions")


def item_groups(task: Task) -> Mapping[str, str]:
    """Return by item what it belongs together with others by, of the items of :class:`TaskScores` that have that."""
    match task:
        case RetrievalTask():
            return task.groups
        case BitextTask() if task.groups:
            return {_text_id(text): group for text, group in zip(task.sentences, task.groups, strict=True)}
        case _:
            return {}


def _transposed(repetitions: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    return zip(*repetitions, strict=True)


def _text_id(text: str) -> str:
    return shown_id(content_id(text))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep mteb's progress bars and remarks out of the output."""
    logger = logging.getLogger("mteb")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            yield
        finally:
            logger.setLevel(level)
