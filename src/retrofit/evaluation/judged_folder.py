"""A BEIR folder in memory: its documents, its queries, and what its test judgements say of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrofit.artefacts import fingerprint
from retrofit.data.sources.beir import Text, beir_tables, read_documents, read_judgements, read_queries, stop
from retrofit.data.sources.files import find_files
from retrofit.data.sources.refusals import Reason, RefusedRowError, Row
from retrofit.errors import UserError

FOLDERS_KEY = "folders"
"""The key that names BEIR folders."""

SIMILARITY_FILES = ("sts.jsonl", "sts.jsonl.gz")
"""Names of the file that holds pairs of sentences and how alike they are."""


@dataclass(frozen=True)
class JudgedFolder:
    """What a folder holds.

    Attributes:
        path: the folder.
        documents: by identifier, in the order of the file.
        queries: by identifier, in the order of the file.
        qrels: relevance grade, above 0, by document by query; a query that names a ``subset`` is judged in that
            subset only. Queries are in their :func:`draw_order`, so the first of them are a sample.
    """

    path: Path
    documents: Mapping[str, Text]
    queries: Mapping[str, Text]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    def query_language(self, query: str, subset: str) -> str:
        """Return the language of a query that is searched in a subset: its own, or the name of the subset."""
        return self.queries[query].language or subset or "unknown"

    def document_language(self, document: str) -> str:
        """Return the language of a document: its own, or the name of its subset."""
        found = self.documents[document]
        return found.language or found.subset or "unknown"

    def query_group(self, query: str) -> str:
        """Return what a query shares with others that ask for the same: its first answer's group, or that answer."""
        answer = next(iter(self.qrels[query]))
        return self.documents[answer].group or answer

    def queries_by_language(self, languages: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Return the judged queries of each language, the languages in the order of their names.

        Args:
            languages: languages to take; None takes all.

        Raises:
            UserError: the folder has queries in none of the languages.
        """
        found: dict[str, list[str]] = {}
        for query, judged in self.qrels.items():
            language = self.query_language(query, self.documents[next(iter(judged))].subset)
            found.setdefault(language, []).append(query)
        return {language: found[language] for language in wanted(languages, found, self.path)}

    @classmethod
    def read(cls, path: Path) -> JudgedFolder:
        """Return what a folder holds.

        Beyond BEIR (Thakur et al. 2021), documents and queries may carry ``lang``, ``subset``, ``group`` (what is
        parallel across languages) and ``label``. Files may be gzipped.

        Args:
            path: holds ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv``.

        Raises:
            UserError: a file is missing, a row cannot be read, or the qrels name an unknown query or passage.
        """
        tables = beir_tables(find_files(str(path), FOLDERS_KEY), str(path), FOLDERS_KEY)
        if tables.documents is None or tables.queries is None or "test" not in tables.judgements:
            raise UserError(f"{FOLDERS_KEY}={path}: expected corpus.jsonl, queries.jsonl and qrels/test.tsv")
        documents = _by_identifier(read_documents(tables.documents(), stop))
        queries = _by_identifier(read_queries(tables.queries(), stop))
        qrels: dict[str, dict[str, int]] = {}
        for row, judgement in read_judgements(tables.judgements["test"](), stop):
            query, document = queries.get(judgement.query), documents.get(judgement.passage)
            if query is None or document is None:
                reason = Reason.UNKNOWN_QUERY if query is None else Reason.UNKNOWN_PASSAGE
                stop(row, RefusedRowError(reason, found=judgement.query if query is None else judgement.passage))
            elif judgement.score > 0 and query.subset in ("", document.subset):
                qrels.setdefault(judgement.query, {})[judgement.passage] = judgement.score
        return cls(path, documents, queries, {query: qrels[query] for query in sorted(qrels, key=draw_order)})


def draw_order(identifier: str) -> bytes:
    """Return what sorts identifiers into an order of their own, whatever file they stand in: as good as at random.

    The first of a file are no sample: question answering goes paragraph by paragraph, STS genre by genre.
    """
    return hashlib.sha256(identifier.encode()).digest()


def _by_identifier(texts: Iterable[tuple[Row, Text]]) -> dict[str, Text]:
    """Return texts by identifier; of an identifier that is there twice the first, as for a data source."""
    found: dict[str, Text] = {}
    for _, text in texts:
        found.setdefault(text.identifier, text)
    return found


def wanted(languages: Sequence[str] | None, known: Iterable[str], folder: Path) -> list[str]:
    """Return those of the languages of a folder that are wanted, in the order of their names.

    Args:
        languages: languages to take; None takes all.
        known: the languages there are.
        folder: for messages.

    Raises:
        UserError: none of them is there.
    """
    found = sorted(known)
    if languages is None:
        return found
    taken = [language for language in found if language in set(languages)]
    if not taken:
        raise UserError(
            f"{FOLDERS_KEY}={folder}: languages {', '.join(languages)} not in it; it has {', '.join(found)}"
        )
    return taken


def folder_fingerprint(folder: Path) -> str:
    """Return 16 hex digits over the names and contents of the files that a folder's tasks are read from.

    Raises:
        UserError: the folder holds nothing, or a file cannot be read.
    """
    root = str(folder)
    files = [file for file in find_files(root, FOLDERS_KEY) if file.suffix in (".jsonl", ".tsv")]
    return fingerprint({file.shown.removeprefix(root): file.fingerprint() for file in files})
