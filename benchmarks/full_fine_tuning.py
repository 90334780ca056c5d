"""Time of a training step with LoRA and with every weight, by the fused layers and by those of transformers.

    python benchmarks/full_fine_tuning.py

The four ways take turns on the same batches: 64 pairs of the embedded corpus, all languages mixed, texts up to 64
tokens, without Lightning, in the precision that ``auto`` means on the machine. Medians of pairs a second, and how many
times as fast as with the layers of transformers, go to ``benchmarks/full_fine_tuning.csv``.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from bare_steps import BareSteps

from retrofit.models.precision import resolve_precision
from training import SETTINGS, pairs_of

TURNS = 7
WAYS = [(learns, layers) for learns in ("lora", "full") for layers in ("transformers", "fused")]
OUTPUT = Path(__file__).with_suffix(".csv")


def main() -> None:
    pairs, max_length = SETTINGS["short"]["pairs"], SETTINGS["short"]["max_length"]
    precision = resolve_precision("auto")
    steps = {way: BareSteps(max_length, None, precision, lora=way[0] == "lora") for way in WAYS}
    for (_, layers), one in steps.items():
        one.encoder.fused = layers == "fused"
    texts = pairs_of("short", None)
    times: dict[tuple[str, str], list[float]] = {way: [] for way in WAYS}
    for turn in range(TURNS + 1):
        batch = [list(pair) for pair in itertools.islice(texts, pairs)]
        for way in WAYS:
            started = time.perf_counter()
            steps[way].take(batch)
            if turn:  # the first turn warms up
                times[way].append(time.perf_counter() - started)
    rows = []
    for learns, layers in WAYS:
        ratios = [plain / own for plain, own in zip(times[learns, "transformers"], times[learns, layers], strict=True)]
        rows.append(
            {
                "learns": learns,
                "layers": layers,
                "precision": precision,
                "threads": torch.get_num_threads(),
                "pairs_per_second": round(pairs / statistics.median(times[learns, layers]), 1),
                "times_as_fast_median": round(statistics.median(ratios), 2),
                "times_as_fast_min": round(min(ratios), 2),
                "times_as_fast_max": round(max(ratios), 2),
            }
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(OUTPUT, index=False)


if __name__ == "__main__":
    main()
