"""Runs that differ in one thing, against a reference, seed by seed and query by query.

Intervals and p-values come from a t-test over seeds and groups of queries (:mod:`retrofit.analysis.clustered`);
p-values are corrected over the comparisons of a group by Holm's method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retrofit.analysis.clustered import QUERY_GROUP, estimate
from retrofit.analysis.run_files import read_config, read_interpolation, read_metrics, read_scores
from retrofit.analysis.run_results import is_finished, is_retention
from retrofit.analysis.significance import CELL, holm, weighted_mean
from retrofit.errors import UserError

log = logging.getLogger(__name__)

METRIC = "ndcg_at_10"
HELD_OUT = "held_out"
"""The suite of the training domain."""
SEEN_GROUP, UNSEEN_GROUP = f"{HELD_OUT}, seen", f"{HELD_OUT}, unseen"
"""Its groups: languages that were trained on, and others."""

SAME_BASE = 0.001
"""By how much the score of one base may differ between runs: by its last digits, which depend on the machine."""


@dataclass(frozen=True)
class Comparison:
    """What runs with several options of one thing came to.

    Attributes:
        runs: a row for each group, option and seed: ``base``, the metric and the ``gain``.
        differences: a row for each group and option but the reference, and for each further pair: what it is
            ``against``, ``seeds`` and ``queries``, mean ``difference``, ``low`` and ``high`` (95%), ``seeds_up``, ``p``
            and ``p_holm``, which is corrected over the options against the reference, and over the further pairs, of a
            group.
        gains: likewise for each group and option, against the base of its runs.
    """

    runs: pd.DataFrame
    differences: pd.DataFrame
    gains: pd.DataFrame


def finished_runs(folder: Path, name_of: Callable[[Mapping[str, Any]], str]) -> dict[tuple[str, int], Path]:
    """Return the finished runs of an experiment by option and seed.

    Args:
        folder: holds the run folders.
        name_of: tells the option from a run's configuration.

    Raises:
        UserError: there is none, or there are two of the same option and seed.
    """
    runs: dict[tuple[str, int], Path] = {}
    for path in sorted(folder.iterdir()):
        if is_finished(path):
            config = read_config(path, "seed")
            key = (name_of(config), int(config["seed"]))
            if key in runs:
                raise UserError(f"{runs[key]} and {path} are both {key[0]} with seed {key[1]}; move one away")
            runs[key] = path
    if not runs:
        raise UserError(f"{folder}: no finished run")
    return runs


def compare_runs(
    runs: Mapping[tuple[str, int], Path],
    reference: str,
    column: str,
    retention_by_task: bool = False,
    further: Iterable[tuple[str, str]] = (),
) -> Comparison:
    """Return runs against those of the reference option.

    A group is a suite; the suite ``held_out`` is two, by whether any run was trained in the query's language.

    Args:
        runs: by option and seed. Options that lack a seed of the reference are left out.
        reference: the option that the others are compared with.
        column: what the options are options of; names their column.
        retention_by_task: whether each task of a suite of retention is a group: one that rises may hide one that falls.
        further: options to compare besides, each with another than the reference; corrected among themselves.

    Raises:
        UserError: the reference has no run, or a run was measured on other queries.
    """
    seeds = sorted(seed for name, seed in runs if name == reference)
    if not seeds:
        known = ", ".join(sorted({name for name, _ in runs}))
        raise UserError(
            f"no finished run of {reference}, which the others are compared with (reference); there are {known}"
        )
    lacking = {name: [seed for seed in seeds if (name, seed) not in runs] for name, _ in runs}
    for name, without in lacking.items():
        if without:
            log.warning("%s is left out: it has no finished run with seed %s", name, ", ".join(map(str, without)))
    further_seeds = sorted({seed for _, seed in runs} - set(seeds))
    if further_seeds:
        given = ", ".join(map(str, further_seeds))
        log.warning("runs with seed %s are left out: %s has no finished run with it", given, reference)
    names = [name for name, without in lacking.items() if not without]
    names.sort(key=lambda name: (name != reference, name))
    groups = cell_groups((runs[name, seed] for name in names for seed in seeds), retention_by_task)
    scores = {
        (name, seed, model): _scores(runs[name, seed], model).merge(groups, on=CELL)
        for name in names
        for seed in seeds
        for model in ("base", "retrofitted")
    }
    asked = scores[reference, seeds[0], "base"]
    beside = [(name, other) for name, other in further if name in names and other in names]
    table: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    gained: list[dict[str, Any]] = []
    for group in sorted(groups["group"].unique()):
        frame = asked[asked["group"] == group].reset_index(drop=True)
        if frame.empty:
            raise UserError(f"{runs[reference, seeds[0]]}: lacks {group}; measure all runs on the same queries")
        keys = [*CELL, "query_id"]
        found = {}
        for (name, seed, model), scored in scores.items():
            part = scored[scored["group"] == group]
            values = frame[keys].merge(part, on=keys, validate="one_to_one", how="left")[METRIC].to_numpy()
            wrong = None
            if len(part) > len(frame):
                wrong = f"has {len(part)} queries of {group}, {reference} has {len(frame)}"
            elif np.isnan(values).any():
                wrong = f"lacks {int(np.isnan(values).sum())} queries of {group} that {reference} was measured on"
            if wrong:
                raise UserError(f"{runs[name, seed]}: {wrong}; measure all runs on the same queries")
            found[name, seed, model] = values
        of_run = {name: np.stack([found[name, seed, "retrofitted"] for seed in seeds]) for name in names}
        before = {name: np.stack([found[name, seed, "base"] for seed in seeds]) for name in names}
        for name in sorted(names):
            for seed, *values in zip(seeds, before[name], of_run[name], strict=True):
                start, mean = (weighted_mean(frame, each) for each in values)
                row = {"group": group, column: name, "seed": seed, "base": start, METRIC: mean}
                table.append({**row, "gain": mean - start})
        _warn_of_other_bases(group, [row["base"] for row in table if row["group"] == group])
        for pairs in ([(name, reference) for name in names[1:]], beside):
            differences = {(name, other): of_run[name] - of_run[other] for name, other in pairs}
            compared += _tested(differences, frame, group, column)
        changes = {(name, "base"): of_run[name] - before[name] for name in names}
        gained += _tested(changes, frame, group, column)
    return Comparison(pd.DataFrame(table), pd.DataFrame(compared), pd.DataFrame(gained))


def _warn_of_other_bases(group: str, bases: Sequence[float]) -> None:
    """Warn where the base of some runs has another score: it was searched in other passages, or in less precision."""
    if max(bases) - min(bases) > SAME_BASE:
        log.warning(
            "%s: the base has %.4f in one run and %.4f in another; were all measured with the same max_passages and "
            "evaluation.precision?",
            group, min(bases), max(bases),
        )  # fmt: skip


def _tested(
    differences: Mapping[tuple[str, str], np.ndarray], frame: pd.DataFrame, group: str, column: str
) -> list[dict[str, Any]]:
    """Return a row for each option's differences, float ``[seeds, queries]``, to what it is compared with."""
    rows: list[dict[str, Any]] = []
    for (name, other), values in differences.items():
        found = estimate(values, frame)
        rows.append(
            {"group": group, column: name, "against": other, "seeds": len(values), "queries": len(frame),
             "difference": found.mean, "low": found.low, "high": found.high,
             "seeds_up": found.seeds_up, "p": found.p}
        )  # fmt: skip
    corrected = holm([row["p"] for row in rows])
    return [{**row, "p_holm": value} for row, value in zip(rows, corrected, strict=True)]


def interpolations(runs: Mapping[tuple[str, int], Path], column: str) -> pd.DataFrame:
    """Return the mean ``gain`` and ``retention`` on validation of each option at each weight that was tried."""
    tried = [read_interpolation(path).assign(**{column: name, "seed": seed}) for (name, seed), path in runs.items()]
    return pd.concat(tried).groupby([column, "weight"])[["gain", "retention"]].mean().reset_index()


def cell_groups(runs: Iterable[Path], retention_by_task: bool) -> pd.DataFrame:
    """Return the cells that runs were measured on, with the group they are reported under; see :func:`compare_runs`.

    A language is seen if any of the runs was trained in it: runs that differ in their languages have the same groups.
    """
    cells = pd.concat([read_metrics(path) for path in runs]).query(f"metric == '{METRIC}' and model == 'base'")
    seen = cells.groupby(["suite", "query_language"])["seen_in_training"].transform("any")
    held_out = cells["suite"] == HELD_OUT
    several = cells.groupby("suite")["task"].transform("nunique") > 1
    by_task = several & cells["suite"].map(is_retention) & retention_by_task
    named = cells["suite"].where(~by_task, cells["suite"] + ": " + cells["task"])
    cells["group"] = named.where(~held_out, np.where(seen, SEEN_GROUP, UNSEEN_GROUP))
    return cells[[*CELL, "group"]].drop_duplicates(ignore_index=True)


def _scores(path: Path, model: str) -> pd.DataFrame:
    """Return the metric of every query of a run's model."""
    return read_scores(path, model, [*CELL, "query_id", QUERY_GROUP, METRIC])
