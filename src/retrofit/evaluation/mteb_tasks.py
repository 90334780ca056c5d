"""Our task records as tasks of mteb, whose data is filled in: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import langcodes

from retrofit.evaluation.tasks import (
    BitextTask,
    ClassificationTask,
    ClusteringTask,
    RetrievalTask,
    SimilarityTask,
    Task,
)

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SPLIT = "test"
"""The split that is evaluated."""

MAIN_METRIC = {
    "retrieval": "ndcg_at_10",
    "reranking": "map_at_1000",
    "bitext": "f1",
    "sts": "spearman",
    "clustering": "v_measure",
    "classification": "accuracy",
}
"""The metric that mteb's leaderboard reports, by kind of task."""

_TYPES = {
    "retrieval": "Retrieval",
    "reranking": "Reranking",
    "bitext": "BitextMining",
    "sts": "STS",
    "clustering": "Clustering",
    "classification": "Classification",
}

KINDS: Mapping[str, str] = {mteb_type: kind for kind, mteb_type in _TYPES.items()}
"""Our name of a kind by mteb's type of task."""


def mteb_task(task: Task) -> AbsTask:
    """Return a task of mteb with the data of a record.

    Where mteb leaves a choice, it is made as in the tasks of its leaderboard, but for two things. Retrieval is cut at
    100 passages instead of 1,000, which changes none of the metrics up to that cut and takes a tenth of the time. And
    clustering, of mteb's present kind (``AbsTaskClustering``, which repeats the clustering over drawn texts; the legacy
    kind expects sets that are drawn beforehand), embeds all texts and draws as many as there are, up to mteb's 16,384.

    mteb keeps metadata and settings in a task's class, so each record becomes a class of its own. Making a task seeds
    the generators of Python, NumPy and PyTorch.
    """
    from mteb.abstasks.task_metadata import TaskMetadata

    base, settings, dataset = _parts(task)
    metadata = TaskMetadata(
        name=task.task,
        description=f"{task.suite}: {task.task}",
        type=_TYPES[task.kind],
        dataset={"path": "filled in", "revision": "none"},
        category="t2c" if task.kind in ("clustering", "classification") else "t2t",
        eval_splits=[SPLIT],
        eval_langs=[_language(code) for code in dict.fromkeys((task.query_language, task.document_language))],
        main_score=MAIN_METRIC[task.kind],
    )
    # A task's name need not be the name of a file.
    attributes = {"metadata": metadata, "prediction_file_name": "predictions.json", **settings}
    made: AbsTask = type(task.task, (base,), attributes)()
    made.dataset = dataset
    made.data_loaded = True
    return made


def _parts(task: Task) -> tuple[type[AbsTask], dict[str, Any], dict[str, Any]]:
    """Return the class of mteb that a record belongs to, what is set in it, and its data by split."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import (
        AbsTaskBitextMining,
        AbsTaskClassification,
        AbsTaskClustering,
        AbsTaskRetrieval,
        AbsTaskSTS,
    )

    match task:
        case RetrievalTask():
            cuts = {"k_values": (1, 3, 5, 10, 20, 100)} if task.candidates is None else {}
            return AbsTaskRetrieval, cuts, {"default": {SPLIT: _retrieval_data(task)}}
        case BitextTask():
            sentences = {"sentence1": list(task.sentences), "sentence2": list(task.translations)}
            return AbsTaskBitextMining, {}, {SPLIT: Dataset.from_dict(sentences)}
        case SimilarityTask():
            pairs = {"sentence1": list(task.first), "sentence2": list(task.second), "score": list(task.scores)}
            return AbsTaskSTS, {}, {SPLIT: Dataset.from_dict(pairs)}
        case ClusteringTask():
            texts = {"sentences": list(task.texts), "labels": list(task.labels)}
            drawn = min(len(task.texts), AbsTaskClustering.max_documents_per_cluster)
            settings = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": drawn}
            return AbsTaskClustering, settings, {SPLIT: Dataset.from_dict(texts)}
        case ClassificationTask():
            number_of = label_numbers(task)
            splits = {"train": (task.train_texts, task.train_labels), SPLIT: (task.texts, task.labels)}
            made = {
                split: Dataset.from_dict({"text": list(of_split), "label": [number_of[label] for label in labels]})
                for split, (of_split, labels) in splits.items()
            }
            return AbsTaskClassification, {}, DatasetDict(made)


def _retrieval_data(task: RetrievalTask) -> dict[str, Any]:
    from datasets import Dataset

    return {
        "queries": Dataset.from_dict({"id": list(task.queries), "text": list(task.queries.values())}),
        "corpus": Dataset.from_dict({"id": list(task.corpus), "text": list(task.corpus.values())}),
        "relevant_docs": {query_id: dict(grades) for query_id, grades in task.qrels.items()},
        "top_ranked": None
        if task.candidates is None
        else {query_id: list(passages) for query_id, passages in task.candidates.items()},
    }


def label_numbers(task: ClassificationTask) -> dict[str, int]:
    """Return the number that stands for each label: mteb takes numbers only."""
    return {label: number for number, label in enumerate(sorted({*task.train_labels, *task.labels}))}


def _language(code: str) -> str:
    """Return a language as mteb writes it, e.g. ``deu-Latn``; ``mul-Zyyy`` for several or none that is known."""
    if not langcodes.tag_is_valid(code):
        return "mul-Zyyy"
    language = langcodes.Language.get(code).maximize()
    return f"{language.to_alpha3()}-{language.script or 'Zyyy'}"
