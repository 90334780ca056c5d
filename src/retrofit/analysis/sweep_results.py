"""The runs of sweeps as the tables that reports, figures and notebooks read, one folder for each finding."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from retrofit.analysis import comparison
from retrofit.analysis.comparison import METRIC, compare_runs
from retrofit.analysis.finding_results import COLUMNS, ELSEWHERE, ENVIRONMENT, RETENTION, TRAINING, UNSEEN
from retrofit.analysis.run_files import read_config, read_curve, read_figures, read_manifest, read_metrics
from retrofit.analysis.run_results import is_finished, is_retention
from retrofit.analysis.significance import CELL
from retrofit.analysis.sweep_status import PLAN
from retrofit.artefacts import read_object, write_json, write_text
from retrofit.errors import UserError
from retrofit.provenance import checkout_commit
from retrofit.sweep_points import point_axes, point_label

_PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "sentence-transformers", "numpy")

_PATH_ELSEWHERE = re.compile(r"(?<![\w.@/])(?:file://|[A-Za-z]:)?(?:~|\.{1,2})?/(?!/)[^,}\]'\"]*/(?=[^,}\]'\"/])")
"""What leads to a folder outside the one a command was given in: of a machine, nothing that tables are to keep."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweptRun:
    """A finished run of a sweep.

    Attributes:
        path: its folder.
        config: ``config.yaml``, resolved.
    """

    path: Path
    config: Mapping[str, Any]

    @property
    def sweep(self) -> dict[str, Any]:
        """The node ``sweep`` of its configuration."""
        return dict(self.config["sweep"])

    @property
    def seed(self) -> int:
        """What its draws depend on."""
        return int(self.config["seed"])

    @property
    def point(self) -> str:
        """What tells it from other runs of the sweep but the seed."""
        return point_label(self.sweep["point"])


def domain_of(group: str) -> str:
    """Return what a group is to the training, a key of ``finding_results.DOMAINS``."""
    if group == comparison.SEEN_GROUP:
        return TRAINING
    if group == comparison.UNSEEN_GROUP:
        return UNSEEN
    return RETENTION if is_retention(group) else ELSEWHERE


def swept_runs(folder: Path) -> list[SweptRun]:
    """Return the finished runs of a sweep.

    Args:
        folder: of an experiment, which holds the run folders.

    Raises:
        UserError: it has none, or what one was asked for cannot be read.
    """
    runs = []
    for path in sorted(folder.glob("*/config.yaml")):
        if is_finished(path.parent) and (config := read_config(path.parent, "seed")).get("sweep"):
            runs.append(SweptRun(path.parent, config))
    if not runs:
        raise UserError(f"{folder}: no finished run of a sweep; retrofit train sweep=NAME makes them")
    return runs


def collect_sweeps(folders: Sequence[Path], output: Path, reference: str | None = None) -> None:
    """Write the tables of sweeps that belong to one finding.

    A point is compared where it has the seeds that the sweep's reference has.

    Args:
        folders: of one sweep's runs each.
        output: the folder that the tables go to; it is made where it does not exist.
        reference: label of the point that others are compared with; None takes what each sweep says.

    Raises:
        UserError: a sweep has no finished run, or none of its reference; a file of a run is missing or cannot be read;
            two sweeps differ in their size alone.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    commands, machine, commits = [], {}, set()
    read: dict[str, Path] = {}
    for folder in folders:
        runs = swept_runs(folder)
        name = str(runs[0].sweep["name"])
        # Without its size: what is asked of negatives is asked of paper/negatives.
        short = name.rpartition("/")[2]
        if short in read:
            raise UserError(f"{read[short]} and {folder} are both {short}; report them into an output each (sweep)")
        read[short] = folder
        log.info("%s: %d finished runs", name, len(runs))
        for key, table in _tables(runs, reference or point_label(runs[0].sweep["reference"])).items():
            table.insert(0, "sweep", short)
            # Points have their axes besides.
            others = [column for column in table if key == "points" and column not in COLUMNS[key]]
            tables.setdefault(key, []).append(table[[*COLUMNS[key], *others]])
        commands += _commands(folder) or [f"retrofit train sweep={name}"]
        machine = read_figures(runs[0].path, "machine")["machine"]
        commits |= {commit for run in runs for commit in _commits(run)}
    output.mkdir(parents=True, exist_ok=True)
    for key, parts in tables.items():
        write_text(output / f"{key}.csv", pd.concat(parts, ignore_index=True).to_csv(index=False, float_format="%.5g"))
    write_json(output / ENVIRONMENT, _environment(commands, machine, commits))


def _tables(runs: Sequence[SweptRun], reference: str) -> dict[str, pd.DataFrame]:
    """Return the tables of one sweep by name, as in ``finding_results.COLUMNS``."""
    by_point: dict[tuple[str, int], Path] = {}
    for run in runs:
        before = by_point.setdefault((run.point, run.seed), run.path)
        if before != run.path:
            raise UserError(f"{before} and {run.path} are both {run.point} with seed {run.seed}; move one away")
    apart = _one_axis_apart(runs, reference)
    compared = compare_runs(by_point, reference, "point", retention_by_task=True, further=apart)
    results = compared.runs.rename(columns={METRIC: "value"})
    results["domain"] = results["group"].map(domain_of)
    results["metric"] = METRIC
    queries = compared.gains.drop_duplicates("group").set_index("group")["queries"]
    results["queries"] = results["group"].map(queries)
    kept = set(zip(results["point"], results["seed"], strict=True))
    runs = [run for run in runs if (run.point, run.seed) in kept]
    differences = pd.concat([compared.gains, compared.differences], ignore_index=True)
    differences["domain"] = differences["group"].map(domain_of)
    return {
        "results": results,
        "points": pd.DataFrame([_point(run) for run in runs]),
        "comparison": differences,
        "languages": _languages(runs),
        "curves": pd.concat([_curve(run) for run in runs]),
    }


def _one_axis_apart(runs: Sequence[SweptRun], reference: str) -> list[tuple[str, str]]:
    """Return points of a grid with what they are when one axis has the reference's value, but for the reference itself.

    So what an axis does is told at every value of the others.
    """
    points = {run.point: run.sweep["point"] for run in runs}
    others = [
        (label, point_label({**point, axis: value}))
        for label, point in sorted(points.items())
        for axis, value in point_axes(reference).items()
    ]
    return [(label, other) for label, other in others if other in points and other not in (label, reference)]


def _means(run: SweptRun) -> pd.DataFrame:
    """Return base and retrofitted of every cell of a run."""
    metrics = read_metrics(run.path).query(f"metric == '{METRIC}'")
    cells = metrics.pivot_table(index=CELL, columns="model", values="value").reset_index()
    base = metrics[metrics["model"] == "base"]
    queries = base.groupby(CELL)["n_queries"].sum().reset_index(name="queries")
    return cells.merge(queries, on=CELL).assign(point=run.point, seed=run.seed)


def _languages(runs: Sequence[SweptRun]) -> pd.DataFrame:
    """Return the mean over tasks, then over seeds, of every language of every suite."""
    groups = comparison.cell_groups((run.path for run in runs), retention_by_task=True)
    cells = pd.concat([_means(run) for run in runs]).merge(groups, on=CELL)
    cells = cells.rename(columns={"query_language": "language"})
    keys = ["point", "group", "language"]
    of_run = cells.groupby([*keys, "seed"]).agg(
        queries=("queries", "sum"), base=("base", "mean"), value=("retrofitted", "mean")
    )
    means = of_run.groupby(keys).mean().reset_index()
    means.insert(2, "domain", means["group"].map(domain_of))
    return means.assign(queries=means["queries"].astype(int), gain=means["value"] - means["base"])


def _point(run: SweptRun) -> dict[str, Any]:
    """Return what a run was, and what it took."""
    manifest = read_manifest(run.path)
    curve = read_curve(run.path, "negatives_per_query", "pairs_per_second", "peak_memory_gb")
    seconds = read_figures(run.path, "seconds")["seconds"]
    return {
        "point": run.point,
        "seed": run.seed,
        **run.sweep["point"],
        "run": run.path.name,
        "pairs": manifest["pairs"],
        "trained_languages": len({row["language"] for row in manifest["pairs_by_task_and_language"]}),
        "steps": int(curve["step"].max()),
        # Of the step: it says how large batches were, where task and language have few pairs.
        "negatives_per_query": curve["negatives_per_query"].median(),
        "training_seconds": seconds["training"],
        "pairs_per_second": curve["pairs_per_second"].median(),
        "total_seconds": seconds["total"],
        "peak_memory_gb": curve["peak_memory_gb"].max(),
    }


def _curve(run: SweptRun) -> pd.DataFrame:
    curve = read_curve(run.path)
    return curve.assign(point=run.point, seed=run.seed)[["point", "seed", "step", "loss"]]


def _commits(run: SweptRun) -> set[str]:
    """Return the commits that measured a run and, where it took over its training from another run, trained it."""
    commits = (
        read_figures(run.path, "machine")["machine"].get("commit"),
        read_object(run.path / "trained_as.json").get("commit"),
    )
    return {str(commit) for commit in commits if commit}


def _commands(folder: Path) -> list[str]:
    """Return the commands that asked for the runs of a folder; of paths that lead elsewhere the last part alone."""
    commands = [shlex.split(str(command)) for command in read_object(folder / PLAN).get("commands", [])]
    return [shlex.join(_PATH_ELSEWHERE.sub("", part) for part in command) for command in commands]


def _environment(commands: Sequence[str], machine: Mapping[str, Any], commits: Iterable[str]) -> dict[str, Any]:
    """Return what the tables were made with: the checkouts, and packages and cores where they are collected.

    Threads and precision are those of a run.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "commit": checkout_commit(),
        "commits_of_runs": sorted(commits),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(memory / 2**30, 1),
            "torch_threads": machine["threads"],
            "precision": machine["evaluation_precision"],
        },
        "commands": list(commands),
    }
