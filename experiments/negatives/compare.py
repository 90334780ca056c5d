"""Runs that differ in their negatives, against those with in-batch negatives alone.

    retrofit train -m experiment=embedded experiment_name=negatives_10k seed=0,1,2 negatives=in_batch,dense_filtered,…
    python experiments/negatives/compare.py runs/negatives_10k

Writes ``runs.csv`` (nDCG@10 of every run), ``comparison.csv`` (differences to in_batch with 95% intervals) and
``interpolation.csv`` (validation gain by distance from the base) beside this file, as ``retrofit.analysis.comparison``
has it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrofit.analysis.comparison import compare_runs, finished_runs, interpolations

HERE = Path(__file__).parent


def name_of(config: Mapping[str, Any]) -> str:
    """Return the option of the group ``negatives`` that a run's configuration shows."""
    negatives = config["negatives"]
    mined = negatives["mined"]
    if mined is None:
        return "random" if negatives["random"] else "given" if negatives["given"] else "in_batch"
    if mined["refresh_every_epochs"] or mined["refresh_every_steps"]:
        return "refreshed"
    if mined["model"] is not None:
        return "teacher"
    if mined["languages"] != "same":
        return "cross_lingual"
    if mined["search"] != "dense":
        return str(mined["search"])
    return "dense" if mined["margin"] is None else "dense_filtered"


def main(folder: Path) -> None:
    runs = finished_runs(folder, name_of)
    compared = compare_runs(runs, "in_batch", "negatives")
    compared.runs.round(4).to_csv(HERE / "runs.csv", index=False)
    compared.differences.round(4).to_csv(HERE / "comparison.csv", index=False)
    interpolations(runs, "negatives").round(4).to_csv(HERE / "interpolation.csv", index=False)
    print(compared.differences.round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
