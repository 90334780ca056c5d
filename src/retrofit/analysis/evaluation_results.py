"""Evaluated models against a reference: by task, language, suite, kind of task and named group, with significance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retrofit.analysis.evaluated_cells import METRIC_BY_KIND, Cell, Evaluation
from retrofit.analysis.group_draws import GroupDraws, named_generator
from retrofit.analysis.retention import domain, named_languages, named_tasks, verdict
from retrofit.analysis.significance import (
    FLIPS,
    RESAMPLES,
    bootstrap_correlations,
    cell_weights,
    cohens_d,
    cohens_q,
    draw_seeds,
    holm,
    mean_of_seeds,
    percentile_interval,
    spearman,
    swapped_correlations,
    two_sided_p,
)
from retrofit.artefacts import write_text

COMPARISON, TABLE, RETENTION = "comparison.csv", "table.csv", "retention.csv"

COMPARISON_COLUMNS = (
    "model", "against", "seeds", "level", "suite", "kind", "group", "metric", "domain", "items", "reference_value",
    "value", "difference", "low", "high", "effect_size", "effect", "p", "p_holm", "verdict",
)  # fmt: skip

TABLE_COLUMNS = ("model", "seeds", "level", "suite", "kind", "group", "metric", "items", "value", "low", "high")

_FAMILY = ["model", "level", "family"]


@dataclass(frozen=True)
class EvaluationComparison:
    """What models came to.

    Attributes:
        comparison: a row for each model but the reference and each group that both were measured on,
            ``COMPARISON_COLUMNS``. ``level`` says what a group is: ``task``, ``language`` (of the query), ``suite``,
            ``kind``, or ``group`` for a named one, of a suite or (``suite`` empty) over all. ``domain`` says whether it
            is of what the model was trained for. ``low`` and ``high`` are a 95% interval of ``difference``. The effect
            size is Cohen's d_z of the paired differences of items or, of correlations, Cohen's q (``effect`` says
            which; none where a group has both). Of clustering the items are languages, for its repetitions are of
            the same texts: it has no interval. ``p_holm`` is corrected over the model's rows of the same level, of
            the same suite where the level is within suites; a group that is all of a suite, such as the only language
            there, asks what the suite asks and has its ``p_holm``. ``verdict`` is ``gained`` or ``lost`` where it is
            below .05, else ``kept``.
        table: a row for each model and group, ``TABLE_COLUMNS``: the value itself with its 95% interval.
    """

    comparison: pd.DataFrame
    table: pd.DataFrame


@dataclass(frozen=True)
class Group:
    """Cells that are read as one figure.

    Attributes:
        level: ``task``, ``language``, ``suite``, ``kind`` or ``group``.
        suite: its suite; empty where it spans several.
        kind: its kind of task; empty where it spans several.
        name: of the task, language, suite, kind or named group.
        weights: what each cell counts, by its place among all cells; they sum to 1.
        model: the model whose training it is named by; None where it is of all models.
    """

    level: str
    suite: str
    kind: str
    name: str
    weights: dict[int, float]
    model: str | None = None


@dataclass
class Figures:
    """What models came to on a cell, or on several by their weights; NaN of a model that was not measured.

    Attributes:
        values: float64 ``[models]``.
        resampled: float64 ``[RESAMPLES, models]``.
        exchanged: differences to the reference where it is exchanged with the model, float64 ``[FLIPS, models]``.
        squares: mean squares of the items' differences to the reference, float64 ``[models]``; NaN of correlations.
        effects: Cohen's q to the reference, float64 ``[models]``; NaN of means.
    """

    values: np.ndarray
    resampled: np.ndarray
    exchanged: np.ndarray
    squares: np.ndarray
    effects: np.ndarray

    @classmethod
    def empty(cls, models: int, fill: float = 0.0) -> Figures:
        """Return figures of no cell."""
        shapes = [(models,), (RESAMPLES, models), (FLIPS, models), (models,), (models,)]
        return cls(*(np.full(shape, fill) for shape in shapes))

    def add(self, other: Figures, weight: float) -> None:
        """Add a cell's figures."""
        for name in ("values", "resampled", "exchanged", "squares", "effects"):
            getattr(self, name).__iadd__(weight * getattr(other, name))


def compare_evaluation(folder: Path) -> EvaluationComparison:
    """Compare the models of an evaluation folder, and write ``comparison.csv`` and ``table.csv`` into it.

    Args:
        folder: with ``scores.parquet``, ``models.csv``, ``training.csv`` and ``config.yaml``. In ``models.csv``,
            models of one ``configuration`` are one model trained with several seeds and shown by that name.

    Raises:
        UserError: a file is missing, cannot be read or lacks a column; models were not measured on the same items.
    """
    found = compare(Evaluation.read(folder))
    for name, frame in ((COMPARISON, found.comparison), (TABLE, found.table)):
        write_text(folder / name, frame.to_csv(index=False, float_format="%.6f"))
    return found


def compare_run(folder: Path) -> EvaluationComparison:
    """Compare the retrofitted model of a run folder with its base, and write ``retention.csv`` into it.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    found = compare(Evaluation.of_run(folder))
    write_text(folder / RETENTION, found.comparison.to_csv(index=False, float_format="%.6f"))
    return found


def compare(evaluation: Evaluation) -> EvaluationComparison:
    """Return the comparison of what was measured; the draws of a cell do not depend on what other cells there are.

    Means are of tasks, of the task's language pairs, of their items; over several suites, of these.
    """
    names = list(evaluation.models)
    seeds = {name: draw_seeds(len(its), named_generator(name)) for name, its in evaluation.models.items()}
    # Cells come suite by suite: a group whose last cell was added is done with, and its draws can go.
    groups = list(_groups(evaluation))
    open_groups: dict[int, Figures] = {}
    left = [len(group.weights) for group in groups]
    of_cell: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        for number in group.weights:
            of_cell.setdefault(number, []).append(place)
    done: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    draws = GroupDraws("")
    for number, cell in enumerate(evaluation.cells):
        if cell.suite != draws.suite:
            draws = GroupDraws(cell.suite)
        figures = _figures(cell, evaluation, seeds, draws)
        for place in of_cell[number]:
            total = open_groups.setdefault(place, Figures.empty(len(names)))
            total.add(figures, groups[place].weights[number])
            left[place] -= 1
            if not left[place]:
                done[place] = _rows(groups[place], open_groups.pop(place), evaluation)
    compared = pd.DataFrame([row for place in sorted(done) for row in done[place][0]])
    table = pd.DataFrame([row for place in sorted(done) for row in done[place][1]], columns=list(TABLE_COLUMNS))
    if compared.empty:
        return EvaluationComparison(pd.DataFrame(columns=list(COMPARISON_COLUMNS)), table)
    compared["p_holm"] = _corrected(compared)
    compared["verdict"] = [verdict(*row) for row in compared[["difference", "p_holm"]].itertuples(index=False)]
    return EvaluationComparison(compared[list(COMPARISON_COLUMNS)], table)


def _corrected(compared: pd.DataFrame) -> pd.Series:
    """Return corrected p-values: a question is asked once, so what is all of a suite is corrected as the suite."""
    question = pd.MultiIndex.from_frame(compared[["model", "cells"]])
    suites = compared["level"] == "suite"
    as_suite = ~suites & question.isin(question[suites])
    corrected = compared[~as_suite].groupby(_FAMILY)["p"].transform(lambda p: holm(p.tolist()))
    of_suites = pd.Series(corrected[suites].to_numpy(), index=question[suites])
    return corrected.reindex(compared.index).where(~as_suite, of_suites.reindex(question).to_numpy())


def _groups(evaluation: Evaluation) -> Iterator[Group]:
    """Yield the groups, suite by suite, then those over all suites."""
    cells = evaluation.cells
    places = {id(cell): place for place, cell in enumerate(cells)}
    trained = {str(model): strata for model, strata in evaluation.training.groupby("model")}
    nothing = evaluation.training.iloc[:0]

    def group(level: str, suite: str, kind: str, name: str, its: Sequence[Cell], model: str | None = None) -> Group:
        units = list(_units(its).values())
        weights = {
            places[id(cell)]: float(weight) / len(units)
            for unit in units
            for cell, weight in zip(unit, cell_weights([cell.task for cell in unit]), strict=True)
        }
        return Group(level, suite, kind, name, weights, model)

    for (suite, kind), unit in _units(cells).items():
        for level, key in (("task", "task"), ("language", "query_language")):
            for name in sorted({getattr(cell, key) for cell in unit}):
                yield group(level, suite, kind, name, [cell for cell in unit if getattr(cell, key) == name])
        for name, its in named_languages(unit, nothing, evaluation.language_groups).items():
            yield group("group", suite, kind, name, its)
        for model, strata in trained.items():
            tasks = named_tasks(unit, strata)
            named = named_languages(unit, strata, {}) | (tasks if len(tasks) > 1 else {})
            for name, its in named.items():
                yield group("group", suite, kind, name, its, model)
        yield group("suite", suite, kind, suite, unit)
    for kind in sorted({cell.kind for cell in cells}):
        yield group("kind", "", kind, kind, [cell for cell in cells if cell.kind == kind])
    for name, its in named_languages(cells, nothing, evaluation.language_groups).items():
        yield group("group", "", "", name, its)
    for model, strata in trained.items():
        for name, its in (named_languages(cells, strata, {}) | named_tasks(cells, strata)).items():
            yield group("group", "", "", name, its, model)


def _units(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return cells by suite and kind: what has one mean, of one metric."""
    units: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        units.setdefault((cell.suite, cell.kind), []).append(cell)
    return units


def _figures(cell: Cell, evaluation: Evaluation, seeds: dict[str, np.ndarray], draws: GroupDraws) -> Figures:
    """Return what models came to on a cell."""
    generator = named_generator(cell.suite, cell.kind, cell.task, cell.query_language, cell.document_language)
    figures = Figures.empty(len(evaluation.models), np.nan)
    columns = {
        place: [cell.models.index(model) for model in its]
        for place, its in enumerate(evaluation.models.values())
        if set(its) <= set(cell.models)
    }
    if cell.gold is None:
        values, resampled = cell.values.mean(axis=0), draws.resampled_means(cell.values, cell.groups)
    else:
        values = spearman(cell.values, cell.gold)
        resampled = bootstrap_correlations(cell.values, cell.gold, generator)
    for place, its in columns.items():
        figures.values[place] = values[its].mean()
        figures.resampled[:, place] = mean_of_seeds(resampled[:, its], list(seeds.values())[place])
    reference = list(evaluation.models).index(evaluation.reference)
    if reference not in columns:
        return figures
    others = [place for place in columns if place != reference]
    if cell.gold is None and others:
        means = {place: cell.values[:, its].mean(axis=1) for place, its in columns.items()}
        differences = np.stack([means[place] - means[reference] for place in others], axis=1)
        figures.exchanged[:, others] = draws.exchanged_means(differences, cell.groups)
        figures.squares[others] = (differences**2).mean(axis=0)
    elif cell.gold is not None and others:
        pairs = [(place, ours, theirs) for place in others for ours in columns[place] for theirs in columns[reference]]
        swapped = swapped_correlations(
            cell.values[:, [ours for _, ours, _ in pairs]],
            cell.values[:, [theirs for _, _, theirs in pairs]],
            cell.gold,
            generator,
        )
        for place in others:
            of_place = [number for number, pair in enumerate(pairs) if pair[0] == place]
            figures.exchanged[:, place] = swapped[:, of_place].mean(axis=1)
            figures.effects[place] = cohens_q(figures.values[place], figures.values[reference])
    return figures


def _rows(group: Group, figures: Figures, evaluation: Evaluation) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of a group in ``comparison.csv``, uncorrected, and in ``table.csv``."""
    names = list(evaluation.models)
    reference = names.index(evaluation.reference)
    cells = [evaluation.cells[place] for place in group.weights]
    metrics = {"spearman" if cell.gold is not None else METRIC_BY_KIND[cell.kind] for cell in cells}
    shared = {
        "level": group.level, "suite": group.suite, "kind": group.kind, "group": group.name,
        "metric": metrics.pop() if len(metrics) == 1 else "", "items": sum(len(cell.values) for cell in cells),
    }  # fmt: skip
    compared, table = [], []
    for place, name in enumerate(names):
        value, draws = figures.values[place], figures.resampled[:, place]
        if np.isnan(value) or group.model not in (None, name):
            continue
        row = {**shared, "model": name, "seeds": len(evaluation.models[name]), "value": float(value)}
        low, high = _interval(draws, cells)
        table.append({**row, "low": low, "high": high})
        difference = float(value - figures.values[reference])
        if place == reference or np.isnan(difference):
            continue
        low, high = _interval(draws - figures.resampled[:, reference], cells)
        training = evaluation.training[evaluation.training["model"] == name]
        q, square = figures.effects[place], figures.squares[place]
        d = np.nan if np.isnan(square) else cohens_d(difference, float(square))
        compared.append(
            {**row, "against": evaluation.reference, "domain": domain(group.name, group.suite, cells, training),
             "reference_value": float(figures.values[reference]), "difference": difference, "low": low, "high": high,
             "effect_size": d if np.isnan(q) else q, "effect": "q" if not np.isnan(q) else "" if np.isnan(d) else "d_z",
             "p": two_sided_p(difference, figures.exchanged[:, place]),
             "cells": tuple(sorted(group.weights.items())),
             # Suites, kinds and the groups over all of them are families of a model; the others are within a suite.
             "family": f"{group.suite}/{group.kind}" if group.suite and group.level != "suite" else ""}
        )  # fmt: skip
    return compared, table


def _interval(draws: np.ndarray, cells: Sequence[Cell]) -> tuple[float, float]:
    """Return the 95% interval of draws; NaN where no cell has groups of items that could be others."""
    if all(len(set(cell.groups)) == 1 for cell in cells):
        return np.nan, np.nan
    return percentile_interval(draws)
