"""Reranking: retrieval where only the best passages of BM25, and what answers the query, are put in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrofit.data.records import Split
from retrofit.data.storage import PairSource
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_folder import tasks_from_beir
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs
from retrofit.models.bm25 import Bm25Index, character_grams

_CHARACTERS = 3


def reranking_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    candidates: int,
    max_queries: int | None,
    max_passages: int | None,
) -> list[RetrievalTask]:
    """Return a task for every query and document language: the queries of all tasks, each with its candidates.

    Args:
        source: the pairs.
        suite: name of the suite.
        split: the split that is searched.
        tasks: tasks to take; None takes all.
        languages: languages to take; None takes all.
        candidates: how many passages of the language BM25 gives; what answers the query is added where it is not among
            them.
        max_queries: most queries of each task and language pair, drawn by content hash; None takes all.
        max_passages: most passages of a language: all that answer a query, filled up with others by content hash.

    Raises:
        UserError: none of the tasks, or of the languages, is in the source, or the split is empty.
    """
    found = tasks_from_pairs(source, suite, split, tasks, "language", max_queries, max_passages, languages=languages)
    merged: dict[tuple[str, str], RetrievalTask] = {}
    for task in found:
        key = task.query_language, task.document_language
        before = merged.get(key, replace(task, task="reranking", queries={}, qrels={}, groups={}))
        merged[key] = replace(
            before,
            queries={**before.queries, **task.queries},
            qrels={**before.qrels, **task.qrels},
            groups={**before.groups, **task.groups},
        )
    return with_candidates([merged[key] for key in sorted(merged)], candidates)


def reranking_tasks_from_folder(
    folder: Path,
    suite: str,
    candidates: int,
    max_queries: int | None = None,
    languages: Sequence[str] | None = None,
) -> list[RetrievalTask]:
    """Return the retrieval tasks of a BEIR folder, each query with its candidates.

    Args:
        folder: see :func:`tasks_from_beir`.
        suite: name of the suite.
        candidates: how many passages BM25 gives; what answers the query is added where it is not among them.
        max_queries: most queries of each task; None takes all.
        languages: languages of queries; None takes all.

    Raises:
        UserError: as :func:`tasks_from_beir`.
    """
    return with_candidates(tasks_from_beir(folder, suite, max_queries, languages), candidates)


def with_candidates(tasks: Sequence[RetrievalTask], count: int) -> list[RetrievalTask]:
    """Return retrieval tasks as reranking tasks.

    The candidates are the ``count`` passages with the highest BM25 score (Lucene's variant, k1 1.5, b 0.75) over
    three-character pieces, which need no word boundaries, and the answers. They are in the order of their identifiers,
    so that their place says nothing of their score.

    Args:
        tasks: what to rerank; tasks that share a corpus share its index.
        count: passages of BM25 a query; more than the corpus has takes the whole corpus.
    """
    indexes: dict[int, tuple[Bm25Index, list[str]]] = {}
    result = []
    for task in tasks:
        # The tasks hold their corpora, so none of these is another's later on.
        if id(task.corpus) not in indexes:
            identifiers = sorted(task.corpus)
            indexes[id(task.corpus)] = Bm25Index(_grams(task.corpus[found] for found in identifiers)), identifiers
        index, identifiers = indexes[id(task.corpus)]
        candidates = {}
        for query, grams in zip(task.queries, _grams(task.queries.values()), strict=True):
            best = np.argsort(-index.scores([grams])[0], kind="stable")[:count]
            candidates[query] = sorted({*(identifiers[place] for place in best), *task.qrels[query]})
        result.append(replace(task, candidates=candidates))
    return result


def _grams(texts: Iterable[str]) -> list[list[str]]:
    return character_grams(list(texts), _CHARACTERS, _CHARACTERS)
