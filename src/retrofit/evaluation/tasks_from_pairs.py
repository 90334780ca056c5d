"""Tasks built from the pairs table of a data source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from retrofit.data.records import Split, shown_id
from retrofit.data.selection import cap_per_stratum, select
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.evaluation.tasks import RetrievalTask

Pool = Literal["language", "task"]


def tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    pool: Pool,
    max_queries: int | None,
    max_passages: int | None,
    seed: int = 0,
    languages: Sequence[str] | None = None,
) -> list[RetrievalTask]:
    """Return one retrieval task for every task, query language and document language of a split.

    Args:
        source: the pairs, and the further passages that a pool of a language holds besides.
        suite: name of the suite.
        split: the split that is searched; the pool holds no pair's passage of another split, unless it is among the
            further passages of the source.
        tasks: tasks to take; None takes all.
        pool: ``language``: a query is searched in all passages of its document language, whatever their task;
            ``task``: in the passages of its own task and languages only.
        max_queries: most queries of each task and language pair, drawn by content hash.
        max_passages: most passages of a pool: every one that answers a query, filled up with others by content hash.
        seed: of the draw of queries.
        languages: languages to take; a cross-lingual pair needs both of its own among them. None takes all.

    Raises:
        UserError: none of the tasks, or of the languages, is in the source, or the split is empty.
    """
    table = source.pairs
    rows = rows_of_suite(source, suite, split, tasks, languages)
    pools: dict[tuple[str, ...], dict[str, str]] = {}
    relevant: dict[tuple[str, str], dict[str, int]] = {}
    groups: dict[tuple[str, str], str] = {}
    reader = RowReader(table)
    for row in reader.rows(rows):
        passages = zip(map(shown_id, row["positive_ids"]), row["positives"], strict=True)
        pools.setdefault(_pool_key(row, pool), {}).update(passages)
        # A query asked in two tasks has the answers of both: the pool of a language holds the other task's as well.
        asked = shown_id(row["query_id"]), row["document_language"]
        answers = relevant.setdefault(asked, {})
        answers.update(dict.fromkeys(map(shown_id, row["positive_ids"]), 1))
        # The first by name, so that the order of the pairs does not tell.
        groups[asked] = min(row["group"], groups.get(asked, row["group"]))
    if pool == "language" and source.passages is not None:
        for row in source.passages.to_pylist():
            if (row["language"],) in pools:
                pools[row["language"],][shown_id(row["passage_id"])] = row["passage"]

    queries: dict[tuple[str, str, str], dict[str, str]] = {}
    pool_of: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row in reader.rows(cap_per_stratum(table, rows, max_queries, seed)):
        key = (row["task"], row["language"], row["document_language"])
        queries.setdefault(key, {})[shown_id(row["query_id"])] = row["query"]
        pool_of[key] = _pool_key(row, pool)
    wanted: dict[tuple[str, ...], set[str]] = {}
    for key, texts in queries.items():
        wanted.setdefault(pool_of[key], set()).update(*(relevant[query_id, key[2]] for query_id in texts))
    reduced = {key: reduced_pool(passages, wanted.get(key, set()), max_passages) for key, passages in pools.items()}
    result = []
    for key in sorted(queries):
        corpus = reduced[pool_of[key]]
        qrels = {
            query_id: {
                passage_id: grade for passage_id, grade in relevant[query_id, key[2]].items() if passage_id in corpus
            }
            for query_id in queries[key]
        }
        grouped = {query_id: groups[query_id, key[2]] for query_id in queries[key]}
        result.append(RetrievalTask(suite, *key, queries=queries[key], corpus=corpus, qrels=qrels, groups=grouped))
    return result


def rows_of_suite(
    source: PairSource, suite: str, split: Split, tasks: Sequence[str] | None, languages: Sequence[str] | None
) -> np.ndarray:
    """Return the row numbers (int64, ascending) of the pairs a suite is made of.

    Args:
        source: the pairs.
        suite: name of the suite, for messages.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; a cross-lingual pair needs both of its own among them. None takes all.

    Raises:
        UserError: none of the tasks, or of the languages, is in the source, or none of its pairs is wanted.
    """
    key = f"evaluation.suites.{suite}"
    rows = select(source.pairs, split, tasks, languages, f"{key}.tasks", f"{key}.languages")
    if len(rows) == 0:
        of = "tasks" if languages is None else "tasks and languages"
        raise UserError(f"{key}: its source has no {split} pairs of these {of}")
    return rows


def reduced_pool(passages: Mapping[str, str], answers: set[str], most: int | None) -> Mapping[str, str]:
    """Return a pool's answers and, up to ``most`` passages together, those with the lowest identifiers.

    Args:
        passages: text by identifier, which is a content hash.
        answers: identifiers that stay.
        most: None keeps all.
    """
    if most is None or len(passages) <= most:
        return passages
    others = sorted(passages.keys() - answers)[: max(0, most - len(answers))]
    kept = answers.union(others)
    return {passage_id: text for passage_id, text in passages.items() if passage_id in kept}


def _pool_key(row: Mapping[str, Any], pool: Pool) -> tuple[str, ...]:
    if pool == "language":
        return (row["document_language"],)
    return (row["task"], row["language"], row["document_language"])
