"""Retrieval tasks read from BEIR folders, and pairs of sentences with what people found of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrofit.data.sources.beir import stop
from retrofit.data.sources.columns import encodable, value_at
from retrofit.data.sources.files import find_files
from retrofit.data.sources.refusals import Reason, RefusedRowError
from retrofit.data.sources.rows import read_jsonl
from retrofit.data.sources.validation import check_split
from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import FOLDERS_KEY, SIMILARITY_FILES, JudgedFolder, draw_order, wanted
from retrofit.evaluation.tasks import RetrievalTask, SimilarityTask
from retrofit.evaluation.tasks_across_languages import MIXED
from retrofit.evaluation.tasks_from_pairs import reduced_pool


def tasks_from_beir(
    folder: Path,
    suite: str,
    max_queries: int | None = None,
    languages: Sequence[str] | None = None,
    min_characters: int | None = None,
    max_passages: int | None = None,
) -> list[RetrievalTask]:
    """Return the retrieval tasks of a BEIR folder, one for each ``subset`` of its documents and language of queries.

    Args:
        folder: see :class:`~retrofit.evaluation.judged_folder.JudgedFolder`.
        suite: name of the suite.
        max_queries: most queries of each task, drawn by identifier; None takes all.
        languages: languages of queries; None takes all.
        min_characters: take only the queries all of whose answers have at least so many characters: the task of long
            documents. The corpus stays whole. None takes all.
        max_passages: most passages of each task: all that answer one of its queries, filled up with others by
            identifier. None takes all.

    Raises:
        UserError: a file is missing, a row cannot be read, the qrels name an unknown query or passage, or there are
            queries in none of the languages.
    """
    read = JudgedFolder.read(folder)
    corpora: dict[str, dict[str, str]] = {}
    document_languages: dict[str, set[str | None]] = {}
    for identifier, document in read.documents.items():
        corpora.setdefault(document.subset, {})[identifier] = document.text
        document_languages.setdefault(document.subset, set()).add(document.language)
    judged: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    for query, grades in read.qrels.items():
        for subset, answers in _by_subset(read, grades).items():
            if all(len(corpora[subset][answer]) >= (min_characters or 0) for answer in answers):
                judged.setdefault((subset, read.query_language(query, subset)), {})[query] = answers
    if min_characters and not judged:
        raise UserError(f"{FOLDERS_KEY}={folder}: min_characters={min_characters}: no query has answers of that length")
    if languages is not None:
        known = wanted(languages, {language for _, language in judged}, folder)
        judged = {key: qrels for key, qrels in judged.items() if key[1] in known}
    result = []
    for (subset, language), qrels in sorted(judged.items()):
        kept = dict(list(qrels.items())[:max_queries])
        queries = {query: read.queries[query].text for query in kept}
        searched = _language_of(document_languages[subset], language)
        corpus = reduced_pool(corpora[subset], set().union(*kept.values()), max_passages)
        groups = {query: read.query_group(query) for query in kept}
        result.append(RetrievalTask(suite, subset, language, searched, queries, corpus, kept, groups))
    return _named(result, read.name)


def similarity_tasks(
    folder: Path, suite: str, languages: Sequence[str] | None = None, max_pairs: int | None = None
) -> list[SimilarityTask]:
    """Return the pairs of sentences of a folder, one task a language.

    ``sts.jsonl`` (or ``sts.jsonl.gz``) holds a pair a line: ``sentence1``, ``sentence2``, ``score`` (a number), and
    where there are several languages or splits ``lang`` and ``split``; only the test split is taken.

    Args:
        folder: holds the file.
        suite: name of the suite.
        languages: languages to take; None takes all.
        max_pairs: most pairs of each language, drawn by their sentences; None takes all.

    Raises:
        UserError: the file is missing or has no test pairs, a row cannot be read, or none of the languages is in it.
    """
    files = [file for file in find_files(str(folder), FOLDERS_KEY) if Path(file.path).name in SIMILARITY_FILES]
    if len(files) != 1:
        raise UserError(f"{FOLDERS_KEY}={folder}: holds {len(files)} of sts.jsonl and sts.jsonl.gz; expected one")
    found: dict[str, list[tuple[str, str, float]]] = {}
    for row in read_jsonl(files[0]):
        try:
            if row.problem is not None:
                raise row.problem
            if check_split(row.values.get("split") or "test") == "test":
                language, pair = _similarity(row.values)
                found.setdefault(language, []).append(pair)
        except RefusedRowError as error:
            stop(row, error)
    if not found:
        raise UserError(f"{files[0].shown}: no pair of the test split")
    result = []
    for language in wanted(languages, found, folder):
        drawn = sorted(found[language], key=lambda pair: draw_order("\x1f".join(pair[:2])))[:max_pairs]
        first, second, scores = zip(*drawn, strict=True)
        result.append(SimilarityTask(suite, folder.resolve().name, language, language, first, second, scores))
    return result


def _similarity(values: Mapping[str, Any]) -> tuple[str, tuple[str, str, float]]:
    """Return the language of a pair of sentences, and the two with their score."""
    sentences = []
    for field in ("sentence1", "sentence2"):
        text = value_at(values, field, field)
        if not isinstance(text, str):
            raise RefusedRowError(Reason.NULL_FIELD if text is None else Reason.NOT_A_TEXT, field, text)
        sentences.append(encodable(text, field))
    score = value_at(values, "score", "score")
    # What reads JSON takes NaN and Infinity for numbers.
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise RefusedRowError(Reason.NOT_A_NUMBER, "score", score)
    return str(values.get("lang") or "unknown"), (sentences[0], sentences[1], float(score))


def _by_subset(folder: JudgedFolder, grades: Mapping[str, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for document, grade in grades.items():
        found.setdefault(folder.documents[document].subset, {})[document] = grade
    return found


def _language_of(languages: Iterable[str | None], of_queries: str) -> str:
    """Return the language of a corpus; that of the queries where its documents name none."""
    named = {language for language in languages if language}
    if len(named) > 1:
        return MIXED
    return named.pop() if named else of_queries


def _named(tasks: list[RetrievalTask], name: str) -> list[RetrievalTask]:
    """Return tasks that are named by their subset under the name of the folder, and the subset where that is not one.

    Results tell tasks of a suite apart by name and languages: two subsets in the same languages need different names.
    """
    times = Counter((task.query_language, task.document_language) for task in tasks)
    return [
        replace(task, task=name if times[task.query_language, task.document_language] == 1 else f"{name}/{task.task}")
        for task in tasks
    ]
