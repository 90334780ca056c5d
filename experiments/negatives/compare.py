"""Runs that differ in their negatives, against those with in-batch negatives alone, seed by seed and query by query.

    retrofit train -m experiment=embedded experiment_name=negatives seed=0,1,2 negatives=in_batch,dense_filtered,…
    python experiments/negatives/compare.py runs/negatives

Writes ``runs.csv`` (nDCG@10 of every run), ``comparison.csv`` (differences to in_batch with 95% intervals) and
``interpolation.csv`` (validation gain by distance from the base) beside this file. Intervals come from a bootstrap that
draws seeds, and queries within every task and language, anew; p-values from flipping the signs of the queries' mean
differences (two-sided, 10,000 times), corrected over the comparisons of a suite by Holm's method.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

HERE = Path(__file__).parent
CELL = ["suite", "task", "query_language", "document_language"]
METRIC = "ndcg_at_10"
REFERENCE = "in_batch"
RESAMPLES = 2_000
FLIPS = 10_000


def name_of(negatives: dict[str, Any]) -> str:
    """Return the option of the group ``negatives`` that a run's configuration shows."""
    mined = negatives["mined"]
    if mined is None:
        return "random" if negatives["random"] else REFERENCE
    if mined.get("refresh_every_epochs") or mined.get("refresh_every_steps"):
        return "refreshed"
    return "dense" if mined["margin"] is None else "dense_filtered"


def read_runs(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the finished runs by negatives and seed."""
    runs = {}
    for path in sorted(folder.iterdir()):
        if (path / "metrics.csv").exists():
            config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
            runs[name_of(config["negatives"]), int(config["seed"])] = path
    return runs


def groups(path: Path) -> pd.DataFrame:
    """Return the cells of a run with the group they are reported under: held-out languages seen in training or not."""
    cells = pd.read_csv(path / "metrics.csv").query(f"metric == '{METRIC}' and model == 'base'")
    seen = cells.groupby(["suite", "query_language"])["seen_in_training"].transform("any")
    held_out = cells["suite"] == "held_out"
    cells["group"] = cells["suite"].where(~held_out, np.where(seen, "held_out, seen", "held_out, unseen"))
    return cells[[*CELL, "group"]]


def per_query(path: Path, model: str) -> pd.DataFrame:
    return pd.read_parquet(path / f"queries_{model}.parquet", columns=[*CELL, "query_id", METRIC])


def group_mean(frame: pd.DataFrame, values: np.ndarray) -> float:
    """Return the mean over tasks of the mean over the task's languages of the mean over their queries."""
    cells = frame.assign(value=values).groupby(["task", "query_language", "document_language"])["value"].mean()
    return float(cells.groupby("task").mean().mean())


def weights(frame: pd.DataFrame) -> np.ndarray:
    """Return what each query counts in :func:`group_mean`."""
    in_cell = frame.groupby(CELL)["query_id"].transform("size").to_numpy()
    cells = frame.drop_duplicates(CELL).groupby("task").size()
    return 1 / in_cell / frame["task"].map(cells).to_numpy() / len(cells)


def interval(differences: np.ndarray, frame: pd.DataFrame, generator: np.random.Generator) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the weighted sum of differences, ``[seeds, queries]``."""
    weight = weights(frame)
    members = list(frame.reset_index(drop=True).groupby(CELL).indices.values())
    sums = np.zeros((RESAMPLES, len(differences)))
    for queries in members:
        counts = generator.multinomial(len(queries), np.full(len(queries), 1 / len(queries)), RESAMPLES)
        sums += counts @ (differences[:, queries] * weight[queries]).T
    seeds = generator.integers(len(differences), size=(RESAMPLES, len(differences)))
    means = np.take_along_axis(sums, seeds, axis=1).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def sign_flip(differences: np.ndarray, frame: pd.DataFrame, generator: np.random.Generator) -> float:
    """Return the two-sided p-value of the queries' mean differences under random signs."""
    values = differences.mean(axis=0) * weights(frame)
    observed, beyond = abs(values.sum()), 0
    for _ in range(10):
        signs = generator.integers(0, 2, size=(FLIPS // 10, len(values)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ values) >= observed - 1e-12).sum())
    return (beyond + 1) / (FLIPS + 1)


def main(folder: Path) -> None:
    runs = read_runs(folder)
    seeds = sorted({seed for _, seed in runs})
    names = [name for name in dict.fromkeys(name for name, _ in runs) if all((name, seed) in runs for seed in seeds)]
    names.sort(key=lambda name: (name != REFERENCE, name))
    cells = groups(runs[REFERENCE, seeds[0]])
    generator = np.random.default_rng(0)
    scores = {
        run: per_query(path, "retrofitted").merge(cells, on=CELL) for run, path in runs.items() if run[0] in names
    }
    base = per_query(runs[REFERENCE, seeds[0]], "base").merge(cells, on=CELL)
    table, compared = [], []
    for group in sorted(cells["group"].unique()):
        frame = base[base["group"] == group].reset_index(drop=True)
        keys = [*CELL, "query_id"]
        of_run = {
            run: frame[keys].merge(queries, on=keys, validate="one_to_one")[METRIC].to_numpy()
            for run, queries in scores.items()
        }
        reference = group_mean(frame, frame[METRIC].to_numpy())
        for (name, seed), values in sorted(of_run.items()):
            mean = group_mean(frame, values)
            row = {"group": group, "negatives": name, "seed": seed, "base": reference, METRIC: mean}
            table.append({**row, "gain": mean - reference})
        rows = []
        for name in names[1:]:
            differences = np.stack([of_run[name, seed] - of_run[REFERENCE, seed] for seed in seeds])
            low, high = interval(differences, frame, generator)
            by_seed = [group_mean(frame, difference) for difference in differences]
            rows.append(
                {"group": group, "negatives": name, "against": REFERENCE, "seeds": len(seeds), "queries": len(frame),
                 "difference": float(np.mean(by_seed)), "low": low, "high": high,
                 "seeds_up": sum(value > 0 for value in by_seed), "p": sign_flip(differences, frame, generator)}
            )  # fmt: skip
        rising = 0.0
        for rank, row in enumerate(sorted(rows, key=lambda row: row["p"])):
            rising = max(rising, min(1.0, row["p"] * (len(rows) - rank)))
            row["p_holm"] = rising
        compared += rows
    pd.DataFrame(table).round(4).to_csv(HERE / "runs.csv", index=False)
    pd.DataFrame(compared).round(4).to_csv(HERE / "comparison.csv", index=False)
    tried = [
        pd.read_csv(runs[name, seed] / "interpolation.csv").assign(negatives=name, seed=seed)
        for name in names
        for seed in seeds
    ]
    by_weight = pd.concat(tried).groupby(["negatives", "weight"])[["gain", "retention"]]
    by_weight.mean().round(4).reset_index().to_csv(HERE / "interpolation.csv", index=False)
    print(pd.DataFrame(compared).round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
