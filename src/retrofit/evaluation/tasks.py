"""What is searched for in what: retrieval tasks built from the pairs table or read from BEIR folders."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from retrofit.data.records import Split
from retrofit.data.selection import cap_per_stratum, select
from retrofit.errors import UserError

Pool = Literal["language", "task"]


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
    table: pa.Table,
    suite: str,
    split: Split,
    tasks: Sequence[str],
    pool: Pool,
    max_queries: int | None,
    max_passages: int | None,
    seed: int = 0,
) -> list[RetrievalTask]:
    """Return one retrieval task for every task, query language and document language of a split.

    Args:
        table: pairs of ``PAIR_SCHEMA``.
        suite: name of the suite.
        split: the split that is searched; the pool holds no passage of another split.
        tasks: tasks to take.
        pool: ``language``: a query is searched in all passages of its document language, whatever their task;
            ``task``: in the passages of its own task and languages only.
        max_queries: most queries of each task and language pair, drawn by content hash.
        max_passages: most passages of a pool: every one that answers a query, filled up with others by content hash.
        seed: of the draw of queries.
    """
    chosen = select(table, split, tasks, tasks_key=f"evaluation.suites.{suite}.tasks")
    pools: dict[tuple[str, ...], dict[str, str]] = {}
    relevant: dict[tuple[str, str], dict[str, int]] = {}
    for row in chosen.to_pylist():
        pools.setdefault(_pool_key(row, pool), {}).update(zip(row["positive_ids"], row["positives"], strict=True))
        # A query asked in two tasks has the answers of both: the pool of a language holds the other task's as well.
        answers = relevant.setdefault((row["query_id"], row["document_language"]), {})
        answers.update(dict.fromkeys(row["positive_ids"], 1))

    queries: dict[tuple[str, str, str], dict[str, str]] = {}
    pool_of: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row in cap_per_stratum(chosen, max_queries, seed).to_pylist():
        key = (row["task"], row["language"], row["document_language"])
        queries.setdefault(key, {})[row["query_id"]] = row["query"]
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
    corpora: dict[str, dict[str, str]] = {}
    subset_of_passage: dict[str, str] = {}
    for document in _read_jsonl(folder / "corpus.jsonl"):
        subset = str(document.get("subset", ""))
        text = " ".join(part for part in (document.get("title"), document["text"]) if part)
        corpora.setdefault(subset, {})[document["_id"]] = text
        subset_of_passage[document["_id"]] = subset
    query_rows = {row["_id"]: row for row in _read_jsonl(folder / "queries.jsonl")}

    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for number, (query_id, passage_id, grade) in _read_qrels(folder / "qrels" / "test.tsv"):
        if query_id not in query_rows or passage_id not in subset_of_passage:
            unknown = f"query {query_id}" if query_id not in query_rows else f"passage {passage_id}"
            raise UserError(
                f"{folder / 'qrels' / 'test.tsv'}, row {number}: {unknown} is in neither file of the folder"
            )
        subset = subset_of_passage[passage_id]
        if grade > 0 and subset == str(query_rows[query_id].get("subset", subset)):
            qrels.setdefault(subset, {}).setdefault(query_id, {})[passage_id] = grade
    result = []
    for subset, judged in sorted(qrels.items()):
        kept = dict(list(judged.items())[:max_queries])
        language = str(query_rows[next(iter(kept))].get("lang", subset or "unknown"))
        texts = {query_id: query_rows[query_id]["text"] for query_id in kept}
        result.append(RetrievalTask(suite, folder.name, language, language, texts, corpora[subset], kept))
    return result


def folder_fingerprint(folder: Path) -> str:
    """Return 16 hex digits over the contents of a BEIR folder's files."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.jsonl*"), *folder.glob("qrels/*.tsv"))):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    zipped = path.with_name(path.name + ".gz")
    if not path.exists() and not zipped.exists():
        raise UserError(f"{path}: no such file, nor {zipped.name}; a BEIR folder holds one (evaluation.folders)")
    with path.open(encoding="utf-8") if path.exists() else gzip.open(zipped, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if not all(isinstance(text, str) for text in (row["_id"], row["text"], row.get("title") or "")):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}, row {number}: expected a JSON object with the strings _id and text, and title if any"
                ) from None
            yield row


def _read_qrels(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    if not path.exists():
        raise UserError(f"{path}: no such file; a BEIR folder holds one (evaluation.folders)")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split("\t")
            if number == 1 and fields[0] == "query-id":
                continue
            if len(fields) != 3 or not re.fullmatch(r"-?[0-9]+", fields[2]):
                raise UserError(f"{path}, row {number}: expected query-id, corpus-id and a whole-number score")
            yield number, (fields[0], fields[1], int(fields[2]))
