"""The measured results of sweeps, as the files of a folder hold them, and the comparisons that are read off them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from retrofit.analysis.significance import SIGNIFICANT
from retrofit.errors import UserError, one_line
from retrofit.sweep_points import point_axes

BASE = "base"
TRAINING, UNSEEN, RETENTION, ELSEWHERE = "training", "unseen_languages", "retention", "elsewhere"
DOMAINS = {
    TRAINING: "held out, languages trained on",
    UNSEEN: "held out, other languages",
    RETENTION: "retention",
    ELSEWHERE: "elsewhere",
}
"""What the groups of results are measured on, as it is read."""

HELD_OUT = (TRAINING, UNSEEN)
Content = TypeVar("Content")

SEVERAL = 2
"""As many seeds are needed before anything is said to differ."""

ENVIRONMENT = "environment.json"

_TEXTS = ("sweep", "point", "group", "domain", "metric", "against", "language", "run")
COLUMNS = {
    "results": ["sweep", "point", "seed", "group", "domain", "metric", "queries", "base", "value", "gain"],
    "points": ["sweep", "point", "seed", "run", "pairs", "trained_languages", "steps", "negatives_per_query",
               "training_seconds", "pairs_per_second", "total_seconds", "peak_memory_gb"],
    "comparison": ["sweep", "point", "group", "domain", "against", "seeds", "queries", "difference", "low", "high",
                   "seeds_up", "p", "p_holm"],
    "languages": ["sweep", "point", "group", "domain", "language", "queries", "base", "value", "gain"],
    "curves": ["sweep", "point", "seed", "step", "loss"],
}  # fmt: skip
"""The columns of each file that are read; ``points.csv`` has one more for each axis of its sweeps."""


@dataclass(frozen=True)
class Contrast:
    """How far a point of a sweep is from another, or from the base, in one group.

    Attributes:
        point: its label.
        against: label of the other point, or ``base``.
        group: the suite, or the part of one.
        difference: mean over seeds and queries, of nDCG@10.
        low: lower end of the 95% interval.
        high: upper end.
        seeds: how many both have.
        seeds_up: in how many of them the point is above.
        seeds_down: in how many it is below; in the others it is level.
        p: corrected by Holm's method; NaN where the two were compared only through a third: the interval then spans
            from the ends of two intervals, and holds more than 95%.
    """

    point: str
    against: str
    group: str
    difference: float
    low: float
    high: float
    seeds: int
    seeds_up: int
    seeds_down: int
    p: float

    @property
    def width(self) -> float:
        """How much its interval leaves open: everything where it has none."""
        width = self.high - self.low
        return math.inf if math.isnan(width) else width

    @property
    def better(self) -> bool:
        """Whether the point is significantly above, in all of several seeds."""
        return self._significant and self.difference > 0 and self.low > 0 and self.seeds_up == self.seeds

    @property
    def worse(self) -> bool:
        """Whether the point is significantly below, in all of several seeds."""
        return self._significant and self.difference < 0 and self.high < 0 and self.seeds_down == self.seeds

    @property
    def _significant(self) -> bool:
        return self.seeds >= SEVERAL and (math.isnan(self.p) or self.p < SIGNIFICANT)


@dataclass(frozen=True)
class SweepResults:
    """What the runs of one or several sweeps came to.

    Attributes:
        folder: of the files.
        results: a row for each run and group: ``base``, ``value`` and ``gain`` of nDCG@10.
        points: a row for each run: what it cost.
        comparison: a row for each point, group and what it is compared with.
        languages: a row for each point, group and language; means over seeds.
        curves: the training loss by run and step.
        environment: ``commit`` (of the report), ``commits_of_runs``, ``packages``, ``machine`` and ``commands``.
    """

    folder: Path
    results: pd.DataFrame
    points: pd.DataFrame
    comparison: pd.DataFrame
    languages: pd.DataFrame
    curves: pd.DataFrame
    environment: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> SweepResults:
        """Return the results of a folder.

        Raises:
            UserError: a file is missing, cannot be read, or lacks a column.
        """
        tables = {
            name: _read(folder / f"{name}.csv", partial(_table, columns=columns)) for name, columns in COLUMNS.items()
        }
        keys = ["sweep", "point"]
        measured, known = (tables[name].set_index(keys).index for name in ("results", "points"))
        for sweep, point in measured.difference(known):
            again = "'retrofit report sweep=NAME' writes both anew"
            raise UserError(f"{folder / 'points.csv'}: no row of {sweep}, {point}, which results.csv has; {again}")
        return cls(folder=folder, environment=_read(folder / ENVIRONMENT, _environment), **tables)

    @property
    def sweeps(self) -> list[str]:
        """The sweeps, in the order of the file."""
        return list(dict.fromkeys(self.results["sweep"]))

    def of(self, sweeps: Iterable[str]) -> SweepResults:
        """Return the results of some of the sweeps."""
        wanted = list(sweeps)
        tables = {name: getattr(self, name) for name in COLUMNS}
        tables = {name: table[table["sweep"].isin(wanted)] for name, table in tables.items()}
        return SweepResults(folder=self.folder, environment=self.environment, **tables)

    def labels(self, sweep: str) -> list[str]:
        """Return the points of a sweep: by the numbers in their labels where there are any, else as in the file."""
        labels = dict.fromkeys(self.results.loc[self.results["sweep"] == sweep, "point"])
        return sorted(labels, key=lambda label: [_number(value) for value in point_axes(label).values()])

    def groups(self, sweep: str, domains: Iterable[str] = DOMAINS) -> list[str]:
        """Return the groups of some domains that a sweep was measured on, by domain and as in the file."""
        rows = self.results[self.results["sweep"] == sweep]
        return [group for domain in domains for group in dict.fromkeys(rows.loc[rows["domain"] == domain, "group"])]

    def seeds(self, sweep: str) -> int:
        """Return how many seeds a sweep has."""
        return int(self.results.loc[self.results["sweep"] == sweep, "seed"].nunique())

    def run_gains(self, sweep: str, domains: Iterable[str]) -> pd.DataFrame:
        """Return ``point``, ``seed``, ``gain`` of each run: over the groups of some domains, each by its queries.

        So points that were trained on different languages are compared on the same queries: what is a language trained
        on for one is another language for the other.
        """
        rows = self.results[(self.results["sweep"] == sweep) & self.results["domain"].isin(list(domains))]
        rows = rows.assign(weighted=rows["gain"] * rows["queries"])
        sums = rows.groupby(["point", "seed"], sort=False)[["weighted", "queries"]].sum().reset_index()
        sums["gain"] = sums["weighted"] / sums["queries"]
        return sums[["point", "seed", "gain"]]

    def gain(self, sweep: str, point: str, group: str) -> Contrast | None:
        """Return a point against the base in a group; None where it was not measured."""
        return self._compared(sweep, point, BASE, group)

    def contrast(self, sweep: str, point: str, against: str, group: str) -> Contrast | None:
        """Return a point against another in a group; None where one of them was not measured.

        Two points that the file does not compare are compared through a third that both are compared with (the base,
        the sweep's reference, a point of its grid), whichever says most: the ends of their intervals are subtracted,
        which never claims too much.
        """
        direct = self._compared(sweep, point, against, group)
        if direct is not None:
            return direct
        turned = self._compared(sweep, against, point, group)
        if turned is not None:
            return Contrast(point, against, group, -turned.difference, -turned.high, -turned.low, turned.seeds,
                            turned.seeds_down, turned.seeds_up, turned.p)  # fmt: skip
        thirds = self.comparison.loc[self.comparison["sweep"] == sweep, "against"].unique()
        through = [self._through(sweep, point, against, third, group) for third in thirds]
        return min(filter(None, through), key=lambda contrast: contrast.width, default=None)

    def _through(self, sweep: str, point: str, against: str, third: str, group: str) -> Contrast | None:
        ours, theirs = self._compared(sweep, point, third, group), self._compared(sweep, against, third, group)
        if ours is None or theirs is None:
            return None
        by_seed = self._by_seed(sweep, point, third, group).sub(self._by_seed(sweep, against, third, group)).dropna()
        return Contrast(
            point, against, group, ours.difference - theirs.difference, ours.low - theirs.high, ours.high - theirs.low,
            len(by_seed), int((by_seed > 0).sum()), int((by_seed < 0).sum()), math.nan,
        )  # fmt: skip

    def _compared(self, sweep: str, point: str, against: str, group: str) -> Contrast | None:
        table = self.comparison
        rows = table[
            (table["sweep"] == sweep)
            & (table["point"] == point)
            & (table["against"] == against)
            & (table["group"] == group)
        ]
        if rows.empty:
            return None
        row = rows.iloc[0]
        by_seed = self._by_seed(sweep, point, against, group)
        return Contrast(
            point, against, group, float(row["difference"]), float(row["low"]), float(row["high"]), int(row["seeds"]),
            int(row["seeds_up"]), int((by_seed < 0).sum()), float(row["p_holm"]),
        )  # fmt: skip

    def _by_seed(self, sweep: str, point: str, against: str, group: str) -> pd.Series:
        """Return the difference of a point to its base, or to another point, in a group by seed."""
        rows = self.results[(self.results["sweep"] == sweep) & (self.results["group"] == group)]
        ours = rows[rows["point"] == point].set_index("seed")
        if against == BASE:
            return ours["gain"]
        return ours["value"].sub(rows[rows["point"] == against].set_index("seed")["value"]).dropna()


def numbered(results: SweepResults, sweep: str, axis: str) -> dict[str, float]:
    """Return the points of a sweep that have a number on an axis, and that number, in rising order."""
    found = {label: _number(point_axes(label).get(axis, "")) for label in results.labels(sweep)}
    return dict(sorted(((label, n) for label, n in found.items() if n < math.inf), key=lambda item: item[1]))


def pairs_of_each_language(results: SweepResults, sweep: str, axis: str) -> dict[str, float]:
    """Return the pairs a language that the points of a sweep had, in rising order: a cap may exceed what there is.

    Args:
        results: that hold the sweep.
        sweep: its name.
        axis: of the cap; points without a number on it are left out.
    """
    runs = results.points[results.points["sweep"] == sweep]
    means = (runs["pairs"] / runs["trained_languages"]).groupby(runs["point"]).mean()
    sizes = {label: float(means[label]) for label in numbered(results, sweep, axis) if label in means}
    return dict(sorted(sizes.items(), key=lambda item: item[1]))


def valued(results: SweepResults, sweep: str, *values: str) -> str | None:
    """Return the point of a sweep whose only axis has one of some values; None where there is none."""
    return next(
        (label for label in results.labels(sweep) if [*point_axes(label).values()] in [[v] for v in values]), None
    )


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.inf  # a stable sort keeps words in the order of the file, behind all numbers


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    try:
        return reader(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: 'retrofit report sweep=NAME' writes it from the runs of a sweep") from None
    except (OSError, ValueError) as error:
        again = "'retrofit report sweep=NAME' writes it anew"
        raise UserError(f"{path} cannot be read: {one_line(error)[:200]}; {again}") from error


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    header = pd.read_csv(path, nrows=0).columns
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"no column {missing[0]!r}")
    # Texts as they stand: pandas would take a language spelled "NA" for a missing value.
    texts = [name for name in header if name in _TEXTS or name not in columns]
    numbers = {name: ["", "nan", "NaN"] for name in header if name not in texts}
    frame: pd.DataFrame = pd.read_csv(
        path, dtype=dict.fromkeys(texts, str) | dict.fromkeys(numbers, float), keep_default_na=False,
        na_values=numbers,
    )  # fmt: skip
    if "metric" in frame:
        frame = frame[frame["metric"] == "ndcg_at_10"]
    return frame.astype({name: int for name in ("seed",) if name in frame})


def _environment(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping")
    unknown: dict[str, Any] = {"commit": "", "commits_of_runs": [], "packages": {}, "machine": {}, "commands": []}
    return unknown | {key: given for key, given in value.items() if given is not None}
