"""From the configuration to the rows that train: source, curation, selection; and an account of all three."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrofit.data.curation.artefact import Curation, curated_rows
from retrofit.data.sampling import Mixture, SamplingPlan, steps_of_passes
from retrofit.data.selection import (
    cap_per_language,
    count_by,
    draw_tasks_and_languages,
    equal_budget,
    select,
    strata,
)
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.instantiation import instantiate


def evaluation_sources(config: Mapping[str, Any]) -> dict[str, PairSource]:
    """Return the sources of ``evaluation.sources`` by name, built where the cache lacks them."""
    return {
        name: PairSource.open(Path(instantiate(source))) for name, source in config["evaluation"]["sources"].items()
    }


@dataclass(frozen=True)
class TrainingData:
    """The pairs that train and where they come from.

    Attributes:
        source: the data source.
        curation: which of its training rows are fit to train on, and why the others are not.
        rows: int64, ascending: the rows of ``source.pairs`` that train.
    """

    source: PairSource
    curation: Curation
    rows: np.ndarray

    @classmethod
    def prepare(cls, config: Mapping[str, Any], evaluation: Mapping[str, PairSource]) -> TrainingData:
        """Return what a configuration selects, built where the cache lacks it.

        Args:
            config: resolved; ``data_source``, ``curation``, ``task_mix``, ``languages``, ``data_scale`` and ``seed``
                are read.
            evaluation: the sources that evaluation uses: nothing of their held-out pairs is trained on.

        Raises:
            UserError: the source cannot be built, or the selection has fewer than two pairs.
        """
        source = PairSource.open(Path(instantiate(config["data_source"]["pairs"])))
        curation = curated_rows(source, evaluation, config["curation"], Path(config["paths"]["cache"]))
        return cls(source, curation, _selected(source.pairs, curation.kept, config))

    def anchor_rows(self, config: Mapping[str, Any]) -> np.ndarray | None:
        """Return the rows of ``source.pairs`` that lend their texts as anchors, int64, ascending; None without anchors.

        Args:
            config: resolved; ``anchor`` is read.

        Raises:
            UserError: the source has none of the tasks.
        """
        anchor = config["anchor"]
        if not anchor["texts"]:
            return None
        rows = select(self.source.pairs, "train", anchor["tasks"], tasks_key="anchor.tasks")
        return np.intersect1d(rows, self.curation.kept, assume_unique=True)

    def plan(self, config: Mapping[str, Any]) -> SamplingPlan:
        """Return the sampling plan of a run.

        Args:
            config: resolved; ``batching``, ``task_mix.weights`` and ``seed`` are read.

        Raises:
            UserError: no batch would hold two pairs.
        """
        batching = config["batching"]
        groups, mixture = strata(self.source.pairs, self.rows), _mixture(config)
        with _selection_named():
            steps = batching["steps"] or steps_of_passes(groups, batching["batch_size"], batching["epochs"], mixture)
            return SamplingPlan(groups, batching["batch_size"], steps, mixture, config["seed"])

    def steps(self, config: Mapping[str, Any], epochs: float) -> int:
        """Return the number of steps, at least one, of so many passes over the selection.

        Args:
            config: resolved; ``batching`` and ``task_mix.weights`` are read.
            epochs: may be part of one.

        Raises:
            UserError: no batch would hold two pairs.
        """
        with _selection_named():
            groups = strata(self.source.pairs, self.rows)
            return steps_of_passes(groups, config["batching"]["batch_size"], epochs, _mixture(config))

    def manifest(self) -> dict[str, Any]:
        """Return what was read, left out and selected, JSON-like: the part of a run's data manifest that is data."""
        names = ("task", "language", "document_language")
        counts = count_by(self.source.pairs, self.rows, *names)
        return {
            "fingerprint": self.source.fingerprint,
            "source": dict(self.source.report),
            "curation": dict(self.curation.report),
            "pairs": len(self.rows),
            "pairs_by_task_and_language": [
                dict(zip((*names, "pairs"), (*key, pairs), strict=True)) for key, pairs in counts.items()
            ],
        }


def _selected(table: pa.Table, kept: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return the rows that a configuration selects of those that curation keeps, int64, ascending.

    Raises:
        UserError: fewer than two are left, or than ``data_scale.pairs``; it says how many each stage left.
    """
    task_mix, languages, scale, seed = (config[name] for name in ("task_mix", "languages", "data_scale", "seed"))
    stages: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "curation leaves": lambda rows: np.intersect1d(rows, kept, assume_unique=True),
        "task_mix.n_tasks and languages.n_languages leave": lambda rows: draw_tasks_and_languages(
            table, rows, task_mix["n_tasks"], languages["n_languages"], seed
        ),
        "data_scale.pairs_per_language leaves": lambda rows: cap_per_language(
            table, rows, scale["pairs_per_language"], seed
        ),
        "data_scale.pairs leaves": lambda rows: equal_budget(table, rows, scale["pairs"], seed, account),
    }
    rows = select(table, "train", task_mix["tasks"], languages["languages"])
    account = f"{len(rows)} have these tasks in these languages (task_mix.tasks, languages.languages)"
    for stage, narrowed in stages.items():
        _check_two(rows, account)
        before, rows = len(rows), narrowed(rows)
        if len(rows) < before:
            account += f", {stage} {len(rows)}"
    _check_two(rows, account)
    return rows


def _check_two(rows: np.ndarray, account: str) -> None:
    if len(rows) < 2:
        raise UserError(f"fewer than two training pairs are selected: {account}")


def _mixture(config: Mapping[str, Any]) -> Mixture:
    batching = config["batching"]
    alpha = batching["alpha"]
    return Mixture(alpha["task"], alpha["language"], config["task_mix"]["weights"], batching["homogeneous"])


@contextmanager
def _selection_named() -> Iterator[None]:
    """Turn what the sampling plan cannot do into an error that names the keys of the selection."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{error} (data_scale, task_mix.tasks, languages.languages)") from error
