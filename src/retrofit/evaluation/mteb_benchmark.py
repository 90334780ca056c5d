"""Benchmarks of mteb by name, whose data comes from the hub or from its cache."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import langcodes
import numpy as np

from retrofit.errors import UserError, one_line
from retrofit.evaluation.mteb_models import encode_options, mteb_model
from retrofit.evaluation.mteb_scoring import LEXICAL_KINDS, TaskScores, keep_queries, quietly, task_scores
from retrofit.evaluation.mteb_tasks import KINDS
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bm25 import LexicalSearcher

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

BENCHMARK_KEY = "evaluation.benchmark.name"
"""The key that names a benchmark."""

TYPES_KEY = "evaluation.benchmark.task_types"
"""The key that names the types of task, as mteb writes them, that are taken of it."""


@dataclass(frozen=True)
class BenchmarkScores:
    """What a model reached on a subset of a task of a benchmark.

    Attributes:
        task: mteb's name of it.
        kind: ours where the task is of one (``retrieval`` …), else mteb's type in small letters.
        subset: mteb's name of it.
        language: of the subset, as BCP 47 writes it; two are joined by ``+`` (mteb does not say which side is which),
            ``mixed`` for more.
        scores: values and, of retrieval and reranking, items. Where mteb evaluates a subset on several splits, values
            are means over these and items those of all.
        n_items: how many examples (queries, pairs, texts) the subset has.
    """

    task: str
    kind: str
    subset: str
    language: str
    scores: TaskScores
    n_items: int


def benchmark_tasks(name: str, task_types: Sequence[str]) -> list[AbsTask]:
    """Return the tasks of a benchmark; of a task that is made of several, each of them. Nothing is downloaded.

    Args:
        name: as mteb writes it, e.g. ``MTEB(Multilingual, v2)``.
        task_types: the types of task to take, e.g. ``Retrieval``.

    Raises:
        UserError: there is no such benchmark, or it has no task of these types.
    """
    import mteb
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    with quietly():
        try:
            found = mteb.get_benchmark(name).tasks
        except KeyError as error:
            raise UserError(f"{BENCHMARK_KEY}={name}: no benchmark of mteb ({error.args[0]})") from error
    single = [part for task in found for part in (task.tasks if isinstance(task, AbsTaskAggregate) else [task])]
    tasks = [task for task in single if task.metadata.type in task_types]
    if not tasks:
        types = ", ".join(sorted({task.metadata.type for task in single}))
        raise UserError(f"{TYPES_KEY}={list(task_types)}: {name} has none of these; it has {types}")
    return tasks


def score_benchmark_task(task: AbsTask, model: TextEmbeddings | LexicalSearcher) -> Iterator[BenchmarkScores]:
    """Yield what a model reaches on each subset of a task, with the prompts that the model's encoder puts.

    Args:
        task: of :func:`benchmark_tasks`; its data is downloaded, or read from the cache of the hub, unless it is
            filled in.
        model: embeddings, which are made for texts that have none yet; or what searches by words, for the
            ``LEXICAL_KINDS``.

    Raises:
        UserError: the data cannot be had, or the task needs vectors and the model has none.
    """
    kind = KINDS.get(task.metadata.type, task.metadata.type.lower())
    if not isinstance(model, TextEmbeddings) and kind not in LEXICAL_KINDS:
        raise UserError(
            f"{TYPES_KEY}: {task.metadata.name} ({task.metadata.type}) needs a model that embeds texts; a lexical one "
            f"can be measured on {' and '.join(LEXICAL_KINDS)} only"
        )
    task = copy.deepcopy(task)  # a benchmark's tasks are shared, and drawing texts changes their generators
    _load(task)
    asked = mteb_model(model)
    kept = keep_queries(task) if kind in LEXICAL_KINDS else {}
    for subset, languages in task.metadata.hf_subsets_to_langscripts.items():
        if subset not in task.hf_subsets:
            continue
        found = []
        for split in task.eval_splits:
            with quietly():
                found += task.evaluate(asked, split, subsets_to_run=[subset], encode_kwargs=encode_options()).values()
        values = _mean(found)
        scores = task_scores(values, kept.pop(subset, []))
        if len(found) > 1:  # the mean of all items is not that of the splits, which have some more of them than others
            scores = replace(scores, values=values)
        yield BenchmarkScores(
            task.metadata.name, kind, subset, _language(languages), scores, _n_items(task, subset, scores)
        )


def _load(task: AbsTask) -> None:
    """Download a task's data, or read it from the cache of the hub.

    Raises:
        UserError: neither can be done.
    """
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if task.data_loaded:
        return
    try:
        with quietly():
            task.load_data()
    except (OSError, ValueError, RuntimeError, KeyError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{BENCHMARK_KEY}: {task.metadata.name} cannot be downloaded ({one_line(error)[:200]}); it takes a network "
            f"that reaches {constants.ENDPOINT}, or HF_HOME set to a folder whose cache holds "
            f"{task.metadata.dataset['path']} (and HF_HUB_OFFLINE=1, so that nothing else is asked for)"
        ) from error


def _mean(splits: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean over splits of every score that is a number."""
    numbers = [
        {metric: float(value) for metric, value in scores.items() if isinstance(value, int | float)}
        for scores in splits
    ]
    return {metric: float(np.mean([scores[metric] for scores in numbers])) for metric in numbers[0]}


def _n_items(task: AbsTask, subset: str, scores: TaskScores) -> int:
    if len(scores.items):
        return scores.n_items
    by_split: Any = task.dataset.get(subset, task.dataset)
    return sum(len(by_split[split]) for split in task.eval_splits)


def _language(codes: Sequence[str]) -> str:
    """Return languages that mteb writes like ``deu-Latn`` as one tag."""
    tags = list(dict.fromkeys(langcodes.standardize_tag(code, macro=True) for code in codes))
    return "+".join(tags) if len(tags) <= 2 else "mixed"
