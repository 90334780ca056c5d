"""Tasks read from BEIR folders, and what of them depends on their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

from retrofit.data.sources.beir import beir_tables, read_documents, read_judgements, read_queries, stop
from retrofit.data.sources.files import find_files
from retrofit.data.sources.refusals import Reason, RefusedRowError
from retrofit.errors import UserError
from retrofit.evaluation.tasks import RetrievalTask

FOLDERS_KEY = "folders"
"""The key that names BEIR folders."""


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
