"""Bitext mining: every sentence has its translation among those of all the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from retrofit.data.records import Split
from retrofit.data.selection import strata
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import FOLDERS_KEY, JudgedFolder
from retrofit.evaluation.tasks import BitextTask
from retrofit.evaluation.tasks_from_pairs import rows_of_suite

Known = tuple[str, Sequence[str]]
"""A sentence and its translations."""


def bitext_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    max_sentences: int | None,
) -> list[BitextTask]:
    """Return a task for every task and two languages of a split's pairs.

    Args:
        source: the pairs: the query is the sentence, a positive its translation. Pairs of one language are passed over.
        suite: name of the suite.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take, both of a pair; None takes all.
        max_sentences: most sentences of each task, those with the lowest content hashes; None takes all.

    Raises:
        UserError: the source has no pairs in two languages of these tasks.
    """
    rows = rows_of_suite(source, suite, split, tasks, languages)
    reader = RowReader(source.pairs)
    result = []
    for (task, language, document_language), members in strata(source.pairs, rows).items():
        if language != document_language:
            found = sorted(reader.rows(members), key=lambda row: row["query_id"])
            sentences, translations = one_to_one(((row["query"], row["positives"]) for row in found), max_sentences)
            groups = _groups(sentences, ((row["query"], row["group"]) for row in found))
            result.append(BitextTask(suite, task, language, document_language, sentences, translations, groups))
    if not result:
        raise UserError(f"evaluation.suites.{suite}.tasks: none of their pairs is in two languages")
    return result


def bitext_tasks_from_folder(
    folder: Path, suite: str, languages: Sequence[str] | None = None, max_queries: int | None = None
) -> list[BitextTask]:
    """Return a task for every language of queries of a BEIR folder whose documents are their translations.

    The pool is the translations of the task's own sentences: documents that translate none of them are left out.

    Args:
        folder: see :class:`~retrofit.evaluation.judged_folder.JudgedFolder`.
        suite: name of the suite.
        languages: languages of queries; None takes all.
        max_queries: most sentences of each task, drawn by identifier; None takes all.

    Raises:
        UserError: the folder cannot be read, or has queries in none of the languages.
    """
    read = JudgedFolder.read(folder)
    result = []
    for language, queries in read.queries_by_language(languages).items():
        by_language: dict[str, list[Known]] = {}
        for query in queries:
            for document_language, found in _translations(read, query).items():
                by_language.setdefault(document_language, []).append((read.queries[query].text, found))
        for document_language, known in sorted(by_language.items()):
            if document_language != language:
                sentences, translations = one_to_one(known, max_queries)
                groups = _groups(sentences, ((read.queries[query].text, read.query_group(query)) for query in queries))
                result.append(
                    BitextTask(suite, read.name, language, document_language, sentences, translations, groups)
                )
    if not result:
        raise UserError(
            f"{FOLDERS_KEY}={folder}: no query has a document in another language; expected a bitext (kind)"
        )
    return result


def one_to_one(known: Iterable[Known], most: int | None) -> tuple[list[str], list[str]]:
    """Return sentences and their translations, each of which translates one of the sentences only.

    Args:
        known: sentences with all their translations, in the order in which they are taken. A sentence is passed over if
            it, or a translation of it, was seen with an earlier one.
        most: stop after so many; None takes all.

    Returns:
        The sentences and, in their places, the first translation of each: all different.
    """
    taken: dict[str, str] = {}
    seen: set[str] = set()
    for sentence, translations in known:
        if len(taken) == most:
            break
        if sentence not in taken and seen.isdisjoint(translations):
            taken[sentence] = translations[0]
            seen.update(translations)
    return list(taken), list(taken.values())


def _groups(sentences: Sequence[str], known: Iterable[tuple[str, str]]) -> list[str]:
    """Return the group of each sentence, the first by name of several."""
    groups: dict[str, str] = {}
    for sentence, group in known:
        groups[sentence] = min(group, groups.get(sentence, group))
    return [groups[sentence] for sentence in sentences]


def _translations(folder: JudgedFolder, query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for document in folder.qrels[query]:
        found.setdefault(folder.document_language(document), []).append(folder.documents[document].text)
    return found
