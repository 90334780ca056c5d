"""From a configuration to synthetic pairs and their comparison with real ones, for the command that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retrofit.artefacts import write_text
from retrofit.data.selection import cap_per_language
from retrofit.data.storage import PairSource, RowReader
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.synthesis.bias import compare_queries, write_bias
from retrofit.synthesis.building import REPORT
from retrofit.synthesis.templates import Templates


def synthesize_and_compare(config: Mapping[str, Any], folder: Path) -> None:
    """Write ``synthesis.json`` and, where languages have enough real queries, what sets the synthetic ones apart.

    Args:
        config: the resolved configuration of ``retrofit synthesize``.
        folder: where to write.

    Raises:
        UserError: the data source is not synthetic, or it cannot be built.
    """
    if "generator" not in config["data_source"]:
        raise UserError(f"data_source={config['data_source']['name']}: expected data_source=synthetic")
    # The real ones first: what is wrong with them should not be found when the others have been paid for.
    sources = [PairSource.open(Path(instantiate(source["pairs"]))) for source in config["real"].values()]
    templates: Templates = instantiate(config["data_source"]["templates"])
    made = PairSource.open(Path(instantiate(config["data_source"]["pairs"])))
    write_text(folder / REPORT, (made.folder / REPORT).read_text(encoding="utf-8"))
    sample, seed = config["sample"], config["seed"]
    synthetic = _queries(made, [], sample, seed)
    real = pd.concat(
        [synthetic.iloc[:0], *(_queries(source, config["not_queries"], sample, seed) for source in sources)]
    )
    real = real[real["language"].isin(synthetic["language"])]
    write_bias(folder, compare_queries(synthetic, real, templates, seed=seed))


def _queries(source: PairSource, without: Sequence[str], sample: int, seed: int) -> pd.DataFrame:
    """Return the queries of a source's training pairs with a passage each: ``language``, ``query``, ``passage``."""
    labels = source.pairs.select(["split", "task"]).to_pandas()
    rows = np.flatnonzero((labels["split"] == "train") & ~labels["task"].isin(without))
    rows = cap_per_language(source.pairs, rows, sample, seed)
    names = ["language", "query", "positives"]
    found = RowReader(source.pairs.select(names)).rows(rows)
    return pd.DataFrame(
        [(row["language"], row["query"], row["positives"][0]) for row in found],
        columns=["language", "query", "passage"],
    )
