"""What a finished run left behind: its folder read once, and the comparisons that report and terminal both show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from retrofit.analysis.run_files import (
    MODELS,
    read_config,
    read_curve,
    read_examples,
    read_figures,
    read_interpolation,
    read_manifest,
    read_metrics,
)
from retrofit.artefacts import read_object

METRIC = "ndcg_at_10"
"""The metric of every figure that is shown; ``metrics.csv`` holds the others."""


@dataclass(frozen=True)
class Comparison:
    """The metrics of a base and what became of it, and the means that are read off them.

    Attributes:
        metrics: long form, as ``metrics.csv`` holds it: one row for each model, suite, task, language pair and metric.
    """

    metrics: pd.DataFrame

    @property
    def suites(self) -> list[str]:
        """The suites, those that watch for forgetting last."""
        names: list[str] = list(dict.fromkeys(self.metrics["suite"]))
        return sorted(names, key=is_retention)  # a stable sort keeps the order of the file within both

    def cells(self, suite: str) -> pd.DataFrame:
        """Return base, retrofitted, gain and ``n_queries`` of every task and language pair of a suite."""
        rows = self.metrics[(self.metrics["suite"] == suite) & (self.metrics["metric"] == METRIC)]
        keys = ["task", "query_language", "document_language"]
        cells = rows.pivot_table(index=keys, columns="model", values="value", aggfunc="mean")
        base = rows[rows["model"] == "base"].set_index(keys)
        cells["seen"] = base["seen_in_training"]
        cells["n_queries"] = base["n_queries"]
        return _with_gain(cells.reset_index())

    def languages(self, suite: str) -> pd.DataFrame:
        """Return the mean over tasks for each query language of a suite, the largest gain first.

        A language is ``seen`` if any of its tasks was trained on.
        """
        means = _means(self.cells(suite), "query_language").rename(columns={"query_language": "language"})
        return means.sort_values(["gain", "language"], ascending=[False, True], ignore_index=True)

    def tasks(self, suite: str) -> pd.DataFrame:
        """Return the mean over language pairs for each task of a suite, by name."""
        return _means(self.cells(suite), "task")

    def suite_mean(self, suite: str) -> dict[str, float]:
        """Return base, retrofitted and gain of a suite: over its tasks, of the mean over each task's language pairs."""
        tasks = self.tasks(suite)
        base, retrofitted = (float(tasks[model].mean()) for model in MODELS)
        return {"base": base, "retrofitted": retrofitted, "gain": retrofitted - base}


@dataclass(frozen=True)
class RunResults(Comparison):
    """The files of a run folder that say what was asked, what was trained on and what came out.

    Attributes:
        folder: the run folder.
        figures: ``metrics.json``: ``headline`` by suite, ``seconds``, ``machine``.
        config: ``config.yaml``, resolved.
        data: ``data_manifest.json``.
        examples: ``examples.json``: queries with the top passages of both models.
        interpolation: ``interpolation.csv``: what each weight tried did on the validation split; None
            where only one was asked for.
        training_curve: ``training_curve.csv``: the loss and more by step.
    """

    folder: Path
    figures: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]
    examples: list[dict[str, Any]]
    interpolation: pd.DataFrame | None
    training_curve: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> RunResults:
        """Return the results of a finished run.

        Raises:
            UserError: a file is missing, cannot be read, or lacks a column or key.
        """
        return cls(
            folder=folder,
            metrics=read_metrics(folder),
            figures=read_figures(folder, "headline"),
            config=read_config(folder, "model"),
            data=read_manifest(folder),
            examples=read_examples(folder),
            interpolation=read_interpolation(folder) if (folder / "interpolation.csv").exists() else None,
            training_curve=read_curve(folder),
        )


def is_retention(suite: str) -> bool:
    """Return whether a suite watches for forgetting, as training tells it: by its name."""
    return suite.startswith("retention")


def is_finished(folder: Path) -> bool:
    """Return whether the run of a folder reached its end, by its ``status.json``."""
    return read_object(folder / "status.json").get("state") == "finished"


def flattened(text: str, length: int | None = None) -> str:
    """Return a text without line breaks and control characters, cut at ``length`` characters where it is longer."""
    flat = " ".join("".join(c if c.isprintable() or _joins(c) else " " for c in text).split())
    return flat if length is None or len(flat) <= length else flat[: length - 1].rstrip() + "…"


def _joins(character: str) -> bool:
    return character in "\u200c\u200d"  # zero-width (non-)joiners are spelling in Persian and in Indic scripts


def _means(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    groups = cells.groupby(by, sort=True)
    means = groups[list(MODELS)].mean()
    means["seen"] = groups["seen"].any()
    means["n_queries"] = groups["n_queries"].sum()
    return _with_gain(means.reset_index())


def _with_gain(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename_axis(None, axis=1).assign(gain=table["retrofitted"] - table["base"])
