"""What a model is measured on: one record for every kind of task that the paper reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the passages they are searched in, and which of those are relevant.

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the queries.
        document_language: language of the passages; ``mixed`` where they are in several.
        queries: text by query id.
        corpus: text by passage id.
        qrels: relevance grade by passage id by query id; every query has at least one grade above zero.
        groups: by query id, what queries belong together by, across tasks and languages of the suite: the integration
            or the paragraph they ask for, the first by name of several. A query that has none is by itself.
        candidates: of reranking, the ids of the passages that are put in order, by query id; None where the whole
            corpus is searched.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, str] = field(default_factory=dict)
    candidates: Mapping[str, Sequence[str]] | None = None

    @property
    def kind(self) -> str:
        """``reranking`` or ``retrieval``."""
        return "retrieval" if self.candidates is None else "reranking"

    @property
    def passages(self) -> list[str]:
        """The texts of the corpus in its order, without blanks at their ends: so mteb hands them to a model."""
        return [text.strip() for text in self.corpus.values()]


@dataclass(frozen=True)
class BitextTask:
    """Sentences, each to be found among the translations of all.

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the sentences.
        document_language: language of the translations.
        sentences: texts, all different.
        translations: of each sentence, in its place; all different.
        groups: of each sentence, in its place, what it belongs together with those of other languages by. Without any,
            a sentence is by itself.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    sentences: Sequence[str]
    translations: Sequence[str]
    groups: Sequence[str] = ()

    kind = "bitext"


@dataclass(frozen=True)
class SimilarityTask:
    """Pairs of sentences and how alike people found them (STS).

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the first sentences.
        document_language: language of the second ones.
        first: sentences.
        second: sentences, likewise many.
        scores: how alike the two are; any scale.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]

    kind = "sts"


@dataclass(frozen=True)
class ClusteringTask:
    """Texts whose labels are to show in how they lie together.

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the texts.
        document_language: likewise.
        texts: all different.
        labels: of each text, in its place.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    texts: Sequence[str]
    labels: Sequence[str]

    kind = "clustering"


@dataclass(frozen=True)
class ClassificationTask:
    """Texts whose labels a classifier over their embeddings is to tell, learnt from a few others.

    Attributes:
        suite: the group of tasks it is reported under.
        task: its name.
        query_language: language of the texts.
        document_language: language of the texts that are learnt from.
        train_texts: what the classifier learns from; none of them is among the others.
        train_labels: of each, in its place.
        texts: all different.
        labels: of each text, in its place; all of them are among the labels that are learnt.
    """

    suite: str
    task: str
    query_language: str
    document_language: str
    train_texts: Sequence[str]
    train_labels: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[str]

    kind = "classification"


Task = RetrievalTask | BitextTask | SimilarityTask | ClusteringTask | ClassificationTask
