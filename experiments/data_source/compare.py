"""Runs that differ in where their pairs come from, against those with real pairs alone.

    python experiments/data_source/compare.py runs/data_source_6k

Writes beside this file ``runs.csv`` (nDCG@10 of every run), ``gains.csv`` (differences to the base with intervals),
``comparison.csv`` (to the real pairs), ``interpolation.csv`` (validation gain by distance from the base) and
``losses.csv``. ``README.md`` has the commands of the runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from retrofit.analysis.comparison import compare_runs, finished_runs, interpolations

HERE = Path(__file__).parent


def name_of(config: Mapping[str, Any]) -> str:
    """Return where the pairs of a run come from."""
    source = config["data_source"]
    if source["name"] == "synthetic":
        return "synthetic_of_real_passages" if "source" in source["passages"]["leads"] else "synthetic"
    return {"embedded": "real", "real_and_synthetic": "both"}[source["name"]]


def losses(runs: Mapping[tuple[str, int], Path]) -> pd.DataFrame:
    """Return the mean training loss of the last ten steps that each run logged."""
    rows = [
        {"data_source": name, "seed": seed, "loss": pd.read_csv(path / "training_curve.csv")["loss"].tail(10).mean()}
        for (name, seed), path in sorted(runs.items())
    ]
    return pd.DataFrame(rows)


def main(folder: Path) -> None:
    runs = finished_runs(folder, name_of)
    compared = compare_runs(runs, "real", "data_source")
    compared.runs.round(4).to_csv(HERE / "runs.csv", index=False)
    compared.differences.round(4).to_csv(HERE / "comparison.csv", index=False)
    compared.gains.round(4).to_csv(HERE / "gains.csv", index=False)
    interpolations(runs, "data_source").round(4).to_csv(HERE / "interpolation.csv", index=False)
    losses(runs).round(4).to_csv(HERE / "losses.csv", index=False)
    print(compared.gains.round(4).to_string())
    print(compared.differences.round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
