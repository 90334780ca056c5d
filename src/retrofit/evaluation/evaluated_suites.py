"""What models are measured on: suites of tasks that are made here, and the tasks of a benchmark of mteb."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from retrofit.artefacts import fingerprint
from retrofit.data.selection import Stratum
from retrofit.data.storage import PairSource
from retrofit.data.training_data import evaluation_sources
from retrofit.evaluation.mteb_benchmark import benchmark_tasks, score_benchmark_task
from retrofit.evaluation.mteb_scoring import LEXICAL_KINDS, TaskScores, score_task
from retrofit.evaluation.mteb_tasks import KINDS
from retrofit.evaluation.suite_tasks import suite_identity, suites_of_folders, tasks_of_suite
from retrofit.evaluation.tasks import Task
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bm25 import LexicalSearcher

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

Measured = TextEmbeddings | LexicalSearcher


class TaskKey(NamedTuple):
    """What a figure is of.

    Attributes:
        suite: the group of tasks it is reported under.
        kind: of the task.
        task: its name.
        query_language: language of the queries.
        document_language: language of the passages; of a benchmark's task with several subsets, the subset, for a task
            may have several in one language and counts once in a mean all the same.
    """

    suite: str
    kind: str
    task: str
    query_language: str
    document_language: str


class ScoredTask(NamedTuple):
    """What a model reached on a task.

    Attributes:
        key: which task.
        scores: its figures.
        n_items: how many queries, sentences, pairs or texts they are of.
    """

    key: TaskKey
    scores: TaskScores
    n_items: int


class EvaluatedSuite(Protocol):
    """What is measured together, and kept together in the cache."""

    @property
    def name(self) -> str:
        """What it is called in log lines."""

    @property
    def identity(self) -> str:
        """What its tasks depend on."""

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks that are made here, whose texts can be compared with those of training."""

    def trained_under(self, strata: Collection[Stratum]) -> set[Stratum]:
        """Return strata under the names of tasks that are made of their pairs and have names of their own."""

    def scores(self, model: Measured) -> Iterator[ScoredTask]:
        """Yield what a model reaches on each task that it can be measured on."""


@dataclass(frozen=True)
class Suite:
    """A suite of the configuration.

    Attributes:
        name: what it is reported under.
        specification: as :func:`tasks_of_suite` takes it.
        sources: data sources by name.
    """

    name: str
    specification: Mapping[str, Any]
    sources: Mapping[str, PairSource]

    @functools.cached_property
    def identity(self) -> str:
        """What its tasks depend on."""
        return suite_identity(self.name, self.specification, self.sources)

    @functools.cached_property
    def tasks(self) -> Sequence[Task]:
        """Its tasks, made when they are asked for."""
        return tasks_of_suite(self.name, self.specification, self.sources)

    def trained_under(self, strata: Collection[Stratum]) -> set[Stratum]:
        """Return strata under the names of tasks that are made of their pairs and have names of their own.

        A ``mixed`` task of a suite is made of the pairs of several tasks: who was trained on those was trained for it.
        """
        made_of = self.specification.get("tasks")
        if "source" not in self.specification or made_of is None:
            return set()
        names = {task.task for task in self.tasks} - set(made_of)
        return {(name, *languages) for task, *languages in strata if task in made_of for name in names}

    def scores(self, model: Measured) -> Iterator[ScoredTask]:
        """Yield what a model reaches on each task that it can be measured on."""
        for task in self.tasks:
            if task.kind in LEXICAL_KINDS or isinstance(model, TextEmbeddings):
                key = TaskKey(*(getattr(task, name) for name in TaskKey._fields))
                scores = score_task(task, model)
                yield ScoredTask(key, scores, scores.n_items)


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of a benchmark of mteb, whose data is had from the hub or from its cache.

    Attributes:
        benchmark: the benchmark's name, which is that of the suite.
        task: mteb's task.
    """

    benchmark: str
    task: AbsTask

    tasks: Sequence[Task] = ()

    @property
    def name(self) -> str:
        """Benchmark and task."""
        return f"{self.benchmark}, {self.task.metadata.name}"

    @property
    def identity(self) -> str:
        """What it depends on: its data, and mteb."""
        metadata = self.task.metadata
        data = {"task": metadata.name, "data": dict(metadata.dataset), "mteb": importlib.metadata.version("mteb")}
        return fingerprint({"benchmark": self.benchmark, **data})

    def trained_under(self, strata: Collection[Stratum]) -> set[Stratum]:  # noqa: ARG002 -- none of its tasks is ours
        """Return nothing: no run is trained on the pairs of a benchmark by its tasks' names."""
        return set()

    def scores(self, model: Measured) -> Iterator[ScoredTask]:
        """Yield what a model reaches on each subset, if it can be measured on it."""
        if KINDS.get(self.task.metadata.type) in LEXICAL_KINDS or isinstance(model, TextEmbeddings):
            for found in score_benchmark_task(self.task, model):
                searched = found.language if found.subset == "default" else found.subset
                key = TaskKey(self.benchmark, found.kind, found.task, found.language, searched)
                yield ScoredTask(key, found.scores, found.n_items)


def suites_of(config: Mapping[str, Any]) -> list[EvaluatedSuite]:
    """Return what a configuration measures: ``evaluation.suites``, ``evaluation.benchmark`` and ``folders``.

    Raises:
        UserError: there is no such benchmark or folder, or a data source cannot be had.
    """
    evaluation = config["evaluation"]
    sources = evaluation_sources(config)
    specifications = {**evaluation["suites"], **suites_of_folders(config["folders"])}
    suites: list[EvaluatedSuite] = [
        Suite(name, specification, sources) for name, specification in specifications.items()
    ]
    if evaluation["benchmark"] is not None:
        name = evaluation["benchmark"]["name"]
        suites += [BenchmarkTask(name, task) for task in benchmark_tasks(**evaluation["benchmark"])]
    return suites
