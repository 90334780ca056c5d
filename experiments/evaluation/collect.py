"""What is committed of an evaluation folder: values and differences by suite, kind, group and language, size, leakage.

    python experiments/evaluation/collect.py FOLDER

Writes beside this file ``values.csv`` and ``differences.csv`` (without the single tasks, which are thousands),
``models.csv`` and ``leakage.csv`` (sums over the tasks of a suite), and ``seeds.csv`` where a model has several: what
each seed came to on every suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
COUNTS = ["queries", "queries_in_training", "passages", "passages_in_training"]


def main(folder: Path) -> None:
    for name, committed in (("table.csv", "values.csv"), ("comparison.csv", "differences.csv")):
        frame = pd.read_csv(folder / name)
        frame[frame["level"] != "task"].to_csv(HERE / committed, index=False, float_format="%.5g")
    models = pd.read_csv(folder / "models.csv")
    models.to_csv(HERE / "models.csv", index=False)
    several = models[models["configuration"].notna() & models["configuration"].duplicated(keep=False)]
    if len(several):
        compared = pd.read_csv(folder / "comparison.csv").query("level == 'suite'")
        metrics = pd.read_csv(folder / "metrics.csv").merge(compared[["suite", "metric"]].drop_duplicates())
        of_seed = metrics.merge(several[["model", "configuration", "seed"]], on="model")
        keys = ["configuration", "seed", "suite", "metric"]
        tasks = of_seed.groupby([*keys, "task"])["value"].mean()
        seeds = tasks.groupby(keys).mean().reset_index()
        seeds.to_csv(HERE / "seeds.csv", index=False, float_format="%.5g")
    leakage = pd.read_csv(folder / "leakage.csv").groupby(["model", "suite"], sort=False)[COUNTS].sum(min_count=1)
    leakage.reset_index().to_csv(HERE / "leakage.csv", index=False, float_format="%.0f")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
