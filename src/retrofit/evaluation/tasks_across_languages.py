"""Retrieval across languages: queries of one language in the passages of another, or of several at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrofit.data.records import Split, shown_id
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import FOLDERS_KEY, JudgedFolder, wanted
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_pairs import reduced_pool, rows_of_suite

Relevant = Literal["all", "own"]

MIXED = "mixed"
"""The document language of a corpus in several languages, and the task that is made of pairs in them."""

CROSS_LINGUAL = "cross_lingual"
"""The task that is made of pairs in several languages, each searched in the passages of another."""


@dataclass(frozen=True)
class ParallelTexts:
    """Queries and passages in several languages, and what answers what across them.

    Attributes:
        queries: text by query by language, in the order in which they are drawn.
        corpora: text by passage by language.
        answers: by query and language, the passages of that language that answer it; grades by passage.
        groups: by query, what it shares with its parallels in other languages.
    """

    queries: Mapping[str, Mapping[str, str]]
    corpora: Mapping[str, Mapping[str, str]]
    answers: Mapping[str, Mapping[str, Mapping[str, int]]]
    groups: Mapping[str, str]


def cross_lingual_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    document_languages: Sequence[str] | None,
    max_queries: int | None,
    max_passages: int | None,
) -> list[RetrievalTask]:
    """Return a task for every two languages: the queries of one are searched in the passages of the other.

    What answers a query there is what answers the queries of the same task and group there, so the source must be one
    whose groups are parallel across languages, such as
    :func:`~retrofit.data.embedded.parallel.build_parallel_interface`. The pool is all passages of the language.

    Args:
        source: the pairs; those of two languages are passed over.
        suite: name of the suite.
        split: the split that is searched.
        tasks: tasks to take; None takes all.
        languages: languages of queries; None takes all.
        document_languages: languages of passages; None takes all.
        max_queries: most queries of each language, those with the lowest content hashes; None takes all.
        max_passages: most passages of a language: all that answer a query, filled up with others by content hash.

    Raises:
        UserError: the source has no such pairs, or no query has an answer in another language.
    """
    both = None if languages is None or document_languages is None else {*languages, *document_languages}
    texts = parallel_pairs(source, suite, split, tasks, None if both is None else sorted(both))
    found = _cross_lingual(
        texts,
        suite,
        CROSS_LINGUAL,
        sorted(languages or texts.queries),
        sorted(document_languages or texts.corpora),
        max_queries,
        max_passages,
    )
    if not found:
        raise UserError(f"evaluation.suites.{suite}: no query has an answer in another language")
    return found


def mixed_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    relevant: Relevant,
    max_queries: int | None,
    max_passages: int | None,
) -> list[RetrievalTask]:
    """Return a task for every language: its queries are searched in the passages of all languages together.

    Args:
        source: the pairs; its groups are parallel across languages, as for :func:`cross_lingual_tasks_from_pairs`.
        suite: name of the suite.
        split: the split that is searched.
        tasks: tasks to take; None takes all.
        languages: languages of queries and passages; None takes all.
        relevant: ``all``: an answer counts in whatever language it is, and all of them are to come first, as in LAReQA
            (Roy et al. 2020); ``own``: only answers in the query's language count, and the others are in their way.
        max_queries: most queries of each language, those with the lowest content hashes; None takes all.
        max_passages: most passages of the corpus: all that answer a query, filled up with others by content hash.

    Raises:
        UserError: the source has no such pairs.
    """
    texts = parallel_pairs(source, suite, split, tasks, languages)
    asked, searched = sorted(texts.queries), sorted(texts.corpora)
    return _mixed(texts, suite, MIXED, asked, searched, relevant, max_queries, max_passages)


def cross_lingual_tasks_from_folder(
    folder: Path,
    suite: str,
    languages: Sequence[str] | None = None,
    document_languages: Sequence[str] | None = None,
    max_queries: int | None = None,
) -> list[RetrievalTask]:
    """Return a task for every two languages of a BEIR folder; see :func:`parallel_folder` for what answers what.

    It has the name of the folder: under that of the tasks made of pairs it would count as trained on with them.

    Args:
        folder: the folder.
        suite: name of the suite.
        languages: languages of queries; None takes all.
        document_languages: languages of documents; None takes all.
        max_queries: most queries of each language, drawn by identifier; None takes all.

    Raises:
        UserError: the folder cannot be read, or no query has an answer in another language.
    """
    read = JudgedFolder.read(folder)
    texts = parallel_folder(read)
    asked, searched = wanted(languages, texts.queries, folder), wanted(document_languages, texts.corpora, folder)
    found = _cross_lingual(texts, suite, read.name, asked, searched, max_queries, None)
    if not found:
        raise UserError(
            f"{FOLDERS_KEY}={folder}: no query has an answer in another language; expected documents of several "
            "languages (lang) with a group each that its translations share"
        )
    return found


def mixed_tasks_from_folder(
    folder: Path,
    suite: str,
    languages: Sequence[str] | None = None,
    relevant: Relevant = "all",
    max_queries: int | None = None,
) -> list[RetrievalTask]:
    """Return a task for every language of a BEIR folder: its queries are searched in the documents of all languages.

    It has the name of the folder, as in :func:`cross_lingual_tasks_from_folder`.

    Args:
        folder: the folder.
        suite: name of the suite.
        languages: languages of queries and documents; None takes all.
        relevant: which answers count, as in :func:`mixed_tasks_from_pairs`.
        max_queries: most queries of each language, drawn by identifier; None takes all.

    Raises:
        UserError: the folder cannot be read.
    """
    read = JudgedFolder.read(folder)
    texts = parallel_folder(read)
    asked, searched = wanted(languages, texts.queries, folder), wanted(languages, texts.corpora, folder)
    return _mixed(texts, suite, read.name, asked, searched, relevant, max_queries, None)


def parallel_pairs(
    source: PairSource, suite: str, split: Split, tasks: Sequence[str] | None, languages: Sequence[str] | None
) -> ParallelTexts:
    """Return the queries and passages of a split, and what the same task and group answers in each language.

    Args:
        source: the pairs.
        suite: name of the suite, for messages.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; None takes all.

    Raises:
        UserError: the source has no such pairs.
    """
    rows = RowReader(source.pairs).rows(rows_of_suite(source, suite, split, tasks, languages))
    queries: dict[str, dict[str, str]] = {}
    corpora: dict[str, dict[str, str]] = {}
    # By task and group, then by language: what answers its queries.
    of_unit: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    units: dict[str, set[tuple[str, str]]] = {}
    for row in sorted(rows, key=lambda row: row["query_id"]):
        language, query = row["language"], shown_id(row["query_id"])
        if language != row["document_language"]:
            continue
        unit = row["task"], row["group"]
        passages = [shown_id(passage) for passage in row["positive_ids"]]
        queries.setdefault(language, {})[query] = row["query"]
        corpora.setdefault(language, {}).update(zip(passages, row["positives"], strict=True))
        of_unit.setdefault(unit, {}).setdefault(language, {}).update(dict.fromkeys(passages, 1))
        units.setdefault(query, set()).add(unit)
    answers: dict[str, dict[str, dict[str, int]]] = {}
    for query, its_units in units.items():
        for unit in sorted(its_units):
            for language, passages_there in of_unit[unit].items():
                answers.setdefault(query, {}).setdefault(language, {}).update(passages_there)
    return ParallelTexts(queries, corpora, answers, {query: min(its)[1] for query, its in units.items()})


def parallel_folder(folder: JudgedFolder) -> ParallelTexts:
    """Return the queries and documents of a folder by language, and what answers what across languages.

    Where some query is judged with a document of another language, the judgements say it all. Where none is, a document
    answers a query in another language if it shares its ``group`` with one that is judged to answer it.

    Args:
        folder: what it holds.
    """
    corpora: dict[str, dict[str, str]] = {}
    groups: dict[str, list[str]] = {}
    for identifier, document in folder.documents.items():
        corpora.setdefault(folder.document_language(identifier), {})[identifier] = document.text
        if document.group is not None:
            groups.setdefault(document.group, []).append(identifier)
    by_language = folder.queries_by_language()
    queries = {
        language: {query: folder.queries[query].text for query in members} for language, members in by_language.items()
    }
    judged_across = any(
        folder.document_language(answer) != language
        for language, members in by_language.items()
        for query in members
        for answer in folder.qrels[query]
    )
    answers: dict[str, dict[str, dict[str, int]]] = {}
    for query, judged in folder.qrels.items():
        found = dict(judged) if judged_across else _through_groups(folder, judged, groups)
        for answer, grade in found.items():
            answers.setdefault(query, {}).setdefault(folder.document_language(answer), {})[answer] = grade
    return ParallelTexts(queries, corpora, answers, {query: folder.query_group(query) for query in folder.qrels})


def _through_groups(
    folder: JudgedFolder, judged: Mapping[str, int], groups: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Return the answers of a query and, with their grades, the documents of other languages in the answers' groups."""
    found = dict(judged)
    for answer, grade in judged.items():
        for parallel in groups.get(folder.documents[answer].group or "", ()):
            if folder.document_language(parallel) != folder.document_language(answer):
                found[parallel] = max(grade, found.get(parallel, 0))
    return found


def _cross_lingual(
    texts: ParallelTexts,
    suite: str,
    name: str,
    languages: Iterable[str],
    document_languages: Iterable[str],
    max_queries: int | None,
    max_passages: int | None,
) -> list[RetrievalTask]:
    result = []
    for document_language in document_languages:
        drawn = {}
        for language in languages:
            answered = [
                query for query in texts.queries.get(language, {}) if texts.answers[query].get(document_language)
            ]
            if language != document_language and answered:
                drawn[language] = {query: texts.answers[query][document_language] for query in answered[:max_queries]}
        answers = {passage for qrels in drawn.values() for judged in qrels.values() for passage in judged}
        corpus = reduced_pool(texts.corpora.get(document_language, {}), answers, max_passages)
        for language, qrels in drawn.items():
            queries = {query: texts.queries[language][query] for query in qrels}
            result.append(RetrievalTask(suite, name, language, document_language, queries, corpus, qrels, texts.groups))
    return sorted(result, key=lambda task: (task.query_language, task.document_language))


def _mixed(
    texts: ParallelTexts,
    suite: str,
    name: str,
    languages: Iterable[str],
    document_languages: Iterable[str],
    relevant: Relevant,
    max_queries: int | None,
    max_passages: int | None,
) -> list[RetrievalTask]:
    corpus: dict[str, str] = {}
    for language in document_languages:
        corpus |= texts.corpora[language]
    drawn: dict[str, dict[str, dict[str, int]]] = {}
    for language in languages:
        of_language: dict[str, dict[str, int]] = {}
        for query in texts.queries[language]:
            counted = [language] if relevant == "own" else texts.answers[query]
            judged: dict[str, int] = {}
            for there in counted:
                judged |= {
                    passage: grade
                    for passage, grade in texts.answers[query].get(there, {}).items()
                    if passage in corpus
                }
            if judged and len(of_language) != max_queries:
                of_language[query] = judged
        if of_language:
            drawn[language] = of_language
    answers = {passage for qrels in drawn.values() for judged in qrels.values() for passage in judged}
    searched = reduced_pool(corpus, answers, max_passages)
    return [
        RetrievalTask(
            suite,
            name,
            language,
            MIXED,
            queries={query: texts.queries[language][query] for query in qrels},
            corpus=searched,
            qrels=qrels,
            groups=texts.groups,
        )
        for language, qrels in drawn.items()
    ]
