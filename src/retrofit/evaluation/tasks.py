"""What is searched for in what: retrieval tasks built from the pairs table or read from BEIR folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrofit.data.records import Split, shown_id
from retrofit.data.selection import cap_per_stratum, select
from retrofit.data.sources.beir import beir_tables, read_documents, read_judgements, read_queries, stop
from retrofit.data.sources.files import find_files
from retrofit.data.sources.refusals import Reason, RefusedRowError
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError

Pool = Literal["language", "task"]

FOLDERS_KEY = "folders"
"""The key of ``retrofit evaluate`` that names BEIR folders."""


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the passages they are searched in, and which of those are relevant.

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the queries.
        document_language: language of the passages.
        queries: text by query id.
        corpus: text by passage id.
        qrels: relevance grade by passage id by query id; every query has at least one grade above zero.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    pool: Pool,
    max_queries: int | None,
    max_passages: int | None,
    seed: int = 0,
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

    Raises:
        UserError: none of the tasks is in the source, or the split is empty.
    """
    table = source.pairs
    rows = select(table, split, tasks, tasks_key=f"evaluation.suites.{suite}.tasks")
    if len(rows) == 0:
        raise UserError(f"evaluation.suites.{suite}: its source has no {split} pairs of these tasks")
    pools: dict[tuple[str, ...], dict[str, str]] = {}
    relevant: dict[tuple[str, str], dict[str, int]] = {}
    reader = RowReader(table)
    for row in reader.rows(rows):
        passages = zip(map(shown_id, row["positive_ids"]), row["positives"], strict=True)
        pools.setdefault(_pool_key(row, pool), {}).update(passages)
        # A query asked in two tasks has the answers of both: the pool of a language holds the other task's as well.
        answers = relevant.setdefault((shown_id(row["query_id"]), row["document_language"]), {})
        answers.update(dict.fromkeys(map(shown_id, row["positive_ids"]), 1))
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
    pools = {key: _reduced(passages, wanted.get(key, set()), max_passages) for key, passages in pools.items()}
    result = []
    for key in sorted(queries):
        corpus = pools[pool_of[key]]
        qrels = {
            query_id: {
                passage_id: grade for passage_id, grade in relevant[query_id, key[2]].items() if passage_id in corpus
            }
            for query_id in queries[key]
        }
        result.append(RetrievalTask(suite, *key, queries=queries[key], corpus=corpus, qrels=qrels))
    return result


def _reduced(passages: dict[str, str], answers: set[str], most: int | None) -> dict[str, str]:
    """Return a pool's answers and, up to ``most`` passages together, those with the lowest content hashes."""
    if most is None or len(passages) <= most:
        return passages
    others = sorted(passages.keys() - answers)[: max(0, most - len(answers))]
    kept = answers.union(others)
    return {passage_id: text for passage_id, text in passages.items() if passage_id in kept}


def _pool_key(row: Mapping[str, Any], pool: Pool) -> tuple[str, ...]:
    if pool == "language":
        return (row["document_language"],)
    return (row["task"], row["language"], row["document_language"])


def tasks_from_beir(folder: Path, suite: str, max_queries: int | None = None) -> list[RetrievalTask]:
    """Return the retrieval tasks of a BEIR folder, one for each ``subset`` of its documents.

    Beyond BEIR (Thakur et al. 2021), documents and queries may carry ``lang`` and ``subset``: a query is then searched
    among the documents of its own subset only. Files may be gzipped.

    Args:
        folder: holds ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``.
        suite: name of the suite.
        max_queries: most queries of each subset, the first of the file; None takes all.

    Raises:
        UserError: a file is missing, a row cannot be read, or the qrels name an unknown query or passage.
    """
    tables = beir_tables(find_files(str(folder), FOLDERS_KEY), str(folder), FOLDERS_KEY)
    if tables.documents is None or tables.queries is None or "test" not in tables.judgements:
        raise UserError(f"{FOLDERS_KEY}={folder}: expected corpus.jsonl, queries.jsonl and qrels/test.tsv")
    corpora: dict[str, dict[str, str]] = {}
    subset_of_passage: dict[str, str] = {}
    for _, document in read_documents(tables.documents(), stop):
        corpora.setdefault(document.subset, {})[document.identifier] = document.text
        subset_of_passage[document.identifier] = document.subset
    queries = {query.identifier: query for _, query in read_queries(tables.queries(), stop)}

    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for row, judgement in read_judgements(tables.judgements["test"](), stop):
        query, subset = queries.get(judgement.query), subset_of_passage.get(judgement.passage)
        if query is None or subset is None:
            reason = Reason.UNKNOWN_QUERY if query is None else Reason.UNKNOWN_PASSAGE
            stop(row, RefusedRowError(reason, found=judgement.query if query is None else judgement.passage))
        elif judgement.score > 0 and query.subset in ("", subset):
            qrels.setdefault(subset, {}).setdefault(judgement.query, {})[judgement.passage] = judgement.score
    result = []
    for subset, judged in sorted(qrels.items()):
        kept = dict(list(judged.items())[:max_queries])
        language = queries[next(iter(kept))].language or subset or "unknown"
        texts = {query_id: queries[query_id].text for query_id in kept}
        result.append(RetrievalTask(suite, folder.name, language, language, texts, corpora[subset], kept))
    return result


def folder_fingerprint(folder: Path) -> str:
    """Return 16 hex digits over the contents of a BEIR folder's files."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.jsonl*"), *folder.glob("qrels/*.tsv"))):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
