"""Reranking: retrieval where only the best passages of BM25, and what answers the query, are put in order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import bm25s

from retrofit.data.records import Split
from retrofit.data.storage import PairSource
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_folder import tasks_from_beir
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs

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
        before = merged.get(key, replace(task, task="reranking", queries={}, qrels={}))
        merged[key] = replace(before, queries={**before.queries, **task.queries}, qrels={**before.qrels, **task.qrels})
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
    indexes: dict[int, tuple[bm25s.BM25, list[str]]] = {}
    result = []
    for task in tasks:
        # The tasks hold their corpora, so none of these is another's later on.
        if id(task.corpus) not in indexes:
            indexes[id(task.corpus)] = _index(task.corpus)
        result.append(replace(task, candidates=_candidates(task, *indexes[id(task.corpus)], count)))
    return result


def pieces(text: str) -> list[str]:
    """Return the overlapping three-character pieces of a case-folded text, blanks at its ends included."""
    padded = f" {' '.join(text.casefold().split())} "
    starts = range(max(1, len(padded) - _CHARACTERS + 1))
    # A piece that comes again is the same object: ten thousand paragraphs would take a gigabyte else.
    return [sys.intern(padded[start : start + _CHARACTERS]) for start in starts]


def _index(corpus: Mapping[str, str]) -> tuple[bm25s.BM25, list[str]]:
    index, identifiers = bm25s.BM25(), sorted(corpus)
    index.index([pieces(corpus[identifier]) for identifier in identifiers], show_progress=False)
    return index, identifiers


def _candidates(
    task: RetrievalTask, index: bm25s.BM25, identifiers: Sequence[str], count: int
) -> Mapping[str, Sequence[str]]:
    asked = [pieces(text) for text in task.queries.values()]
    places, _ = index.retrieve(asked, k=min(count, len(identifiers)), show_progress=False, backend_selection="numpy")
    return {
        query: sorted({*(identifiers[place] for place in found), *task.qrels[query]})
        for query, found in zip(task.queries, places.tolist(), strict=True)
    }
