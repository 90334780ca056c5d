"""Clustering and classification: texts, each with one label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from retrofit.data.records import Split, content_id
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import FOLDERS_KEY, JudgedFolder, wanted
from retrofit.evaluation.tasks import ClassificationTask, ClusteringTask
from retrofit.evaluation.tasks_from_pairs import rows_of_suite

Side = Literal["query", "positives"]

Labelled = Mapping[str, Sequence[str]]
"""Texts by label: no text has two, and none occurs twice."""


def clustering_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    sides: Sequence[Side],
    max_labels: int | None,
    min_texts_per_label: int,
    max_texts_per_label: int | None,
) -> list[ClusteringTask]:
    """Return a task for every language: its texts, labelled with their groups (integrations, intents).

    Args:
        source: the pairs; those of two languages are passed over.
        suite: name of the suite.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; None takes all.
        sides: which texts of a pair are taken.
        max_labels: most labels of each language, those with most texts; None takes all.
        min_texts_per_label: labels with fewer texts are left out, and languages with fewer than two labels.
        max_texts_per_label: most texts of a label, those with the lowest content hashes; None takes all.

    Raises:
        UserError: no language has two labels.
    """
    limits = (max_labels, min_texts_per_label, max_texts_per_label)
    found = _labelled_by_language(source, suite, split, tasks, languages, sides, limits)
    return [
        ClusteringTask(suite, _name(tasks, "clustering"), language, language, *_listed(texts))
        for language, texts in found.items()
    ]


def classification_tasks_from_pairs(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    sides: Sequence[Side],
    max_labels: int | None,
    min_texts_per_label: int,
    max_texts_per_label: int | None,
) -> list[ClassificationTask]:
    """Return a task for every language: the texts of :func:`clustering_tasks_from_pairs`, half of them to learn from.

    Both halves are of the split that is measured, so a model has been trained on neither.

    Args:
        source: the pairs; those of two languages are passed over.
        suite: name of the suite.
        split: the split to take.
        tasks: tasks to take; None takes all.
        languages: languages to take; None takes all.
        sides: which texts of a pair are taken.
        max_labels: most labels of each language, those with most texts; None takes all.
        min_texts_per_label: labels with fewer texts are left out, and languages with fewer than two labels.
        max_texts_per_label: most texts of a label, both halves together; None takes all.

    Raises:
        UserError: no language has two labels.
    """
    limits = (max_labels, min_texts_per_label, max_texts_per_label)
    found = _labelled_by_language(source, suite, split, tasks, languages, sides, limits)
    result = []
    for language, texts in found.items():
        learnt = _listed({label: members[::2] for label, members in texts.items()})
        told = _listed({label: members[1::2] for label, members in texts.items()})
        result.append(ClassificationTask(suite, _name(tasks, "classification"), language, language, *learnt, *told))
    return result


def clustering_tasks_from_folder(
    folder: Path, suite: str, languages: Sequence[str] | None = None, max_texts_per_label: int | None = None
) -> list[ClusteringTask]:
    """Return a task for every language of a BEIR folder whose documents carry ``label``.

    The texts of a language are its labelled documents or, where it has none, its queries, each with the label of what
    answers it.

    Args:
        folder: see :class:`~retrofit.evaluation.judged_folder.JudgedFolder`.
        suite: name of the suite.
        languages: languages to take; None takes all.
        max_texts_per_label: most texts of a label, those with the lowest content hashes; None takes all.

    Raises:
        UserError: the folder cannot be read, or no language has texts of two labels.
    """
    read = JudgedFolder.read(folder)
    found = _label_of_queries(read)
    for language, documents in _label_of_documents(read, read.documents).items():
        found[language] = documents
    result = []
    for language in wanted(languages, found, folder):
        texts = labelled(found[language], None, 1, max_texts_per_label)
        if len(texts) > 1:
            result.append(ClusteringTask(suite, read.name, language, language, *_listed(texts)))
    if not result:
        raise _no_labels(folder)
    return result


def classification_tasks_from_folder(
    folder: Path, suite: str, languages: Sequence[str] | None = None, max_texts_per_label: int | None = None
) -> list[ClassificationTask]:
    """Return a task for every language of queries of a BEIR folder whose documents carry ``label``.

    What is learnt from are the labelled documents that answer no query, so neither a text nor its translation is on
    both sides; what is told are the queries, each by the label of what answers it. Where the two are of different
    languages, it is classification across languages, and the task's document language is that of the documents.

    Args:
        folder: see :class:`~retrofit.evaluation.judged_folder.JudgedFolder`.
        suite: name of the suite.
        languages: languages of queries; None takes all.
        max_texts_per_label: most texts of a label that is learnt, those with the lowest content hashes; None takes all.

    Raises:
        UserError: the folder cannot be read, or has no labelled queries, or no two labels to learn.
    """
    read = JudgedFolder.read(folder)
    told = _label_of_queries(read)
    answering = {document for judged in read.qrels.values() for document in judged}
    free = [document for document in read.documents if document not in answering]
    result = []
    for document_language, pairs in sorted(_label_of_documents(read, free).items()):
        for language in wanted(languages, told, folder) if told else ():
            asked = {text.casefold() for text, _ in told[language]}
            learnt = labelled((pair for pair in pairs if pair[0].casefold() not in asked), None, 1, max_texts_per_label)
            texts = labelled((pair for pair in told[language] if pair[1] in learnt), None, 1, None)
            if len(learnt) > 1 and texts:
                sides = (*_listed(learnt), *_listed(texts))
                result.append(ClassificationTask(suite, read.name, language, document_language, *sides))
    if not result:
        raise _no_labels(folder)
    return result


def labelled(
    pairs: Iterable[tuple[str, str]], max_labels: int | None, min_texts: int, max_texts: int | None
) -> Labelled:
    """Return texts by label, the labels in the order of their names and their texts in that of their content hashes.

    Args:
        pairs: text and label. A text with several labels is left out; one that differs in case only counts as the same.
        max_labels: most labels, those with most texts; None takes all.
        min_texts: labels with fewer texts are left out.
        max_texts: most texts of a label, the first; None takes all.
    """
    spelt: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for text, label in pairs:
        folded = text.casefold()
        spelt[folded] = min(text, spelt.get(folded, text))
        labels.setdefault(folded, set()).add(label)
    texts: dict[str, list[str]] = {}
    for folded in sorted(spelt, key=content_id):
        if len(labels[folded]) == 1:
            texts.setdefault(next(iter(labels[folded])), []).append(spelt[folded])
    counts = Counter({label: len(members) for label, members in sorted(texts.items()) if len(members) >= min_texts})
    kept = sorted(label for label, _ in counts.most_common(max_labels))
    return {label: texts[label][:max_texts] for label in kept}


def _labelled_by_language(
    source: PairSource,
    suite: str,
    split: Split,
    tasks: Sequence[str] | None,
    languages: Sequence[str] | None,
    sides: Sequence[Side],
    limits: tuple[int | None, int, int | None],
) -> dict[str, Labelled]:
    """Return the labelled texts of every language that has two labels, the languages in the order of their names."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in RowReader(source.pairs).rows(rows_of_suite(source, suite, split, tasks, languages)):
        if row["language"] == row["document_language"]:
            texts = [row["query"]] if "query" in sides else []
            texts += row["positives"] if "positives" in sides else []
            found.setdefault(row["language"], []).extend((text, row["group"]) for text in texts)
    result = {language: labelled(pairs, *limits) for language, pairs in sorted(found.items())}
    result = {language: texts for language, texts in result.items() if len(texts) > 1}
    if not result:
        raise UserError(
            f"evaluation.suites.{suite}.min_texts_per_label={limits[1]}: no language has two labels with so many texts"
        )
    return result


def _label_of_documents(folder: JudgedFolder, documents: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return texts and labels of those documents that have one, by language."""
    found: dict[str, list[tuple[str, str]]] = {}
    for document in documents:
        if label := folder.documents[document].label:
            pair = folder.documents[document].text, label
            found.setdefault(folder.document_language(document), []).append(pair)
    return found


def _label_of_queries(folder: JudgedFolder) -> dict[str, list[tuple[str, str]]]:
    """Return texts of queries and the label of what answers them, by language; without those that have none or two."""
    found: dict[str, list[tuple[str, str]]] = {}
    for language, queries in folder.queries_by_language().items():
        for query in queries:
            labels = {label for document in folder.qrels[query] if (label := folder.documents[document].label)}
            if len(labels) == 1:
                found.setdefault(language, []).append((folder.queries[query].text, labels.pop()))
    return found


def _listed(texts: Labelled) -> tuple[list[str], list[str]]:
    """Return texts and, in their places, their labels."""
    pairs = [(text, label) for label, members in texts.items() for text in members]
    return [text for text, _ in pairs], [label for _, label in pairs]


def _name(tasks: Sequence[str] | None, kind: str) -> str:
    """Return the name of a task made of several: its only one, or what kind it is."""
    return tasks[0] if tasks is not None and len(tasks) == 1 else kind


def _no_labels(folder: Path) -> UserError:
    return UserError(f"{FOLDERS_KEY}={folder}: no texts of two labels; expected documents with label")
