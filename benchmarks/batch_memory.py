"""Peak memory of a training step against the pairs of its batch: with gradient caching, and with all activations kept.

    python benchmarks/batch_memory.py [PAIRS …]

Every batch is trained for two steps in a process of its own, with the embedded model, LoRA and pairs of the embedded
corpus, as ``benchmarks/training.py`` has them, in the precision that this machine runs best in. ``cached`` keeps the
activations of 16,384 tokens, the default of ``batching=short_texts``; ``kept`` keeps all, up to a batch of 512: 1,024
would take 17 GB in float32.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bare_steps import BareSteps

from retrofit.models.precision import resolve_precision
from training import SETTINGS, pairs_of

SIZES = ("64", "256", "512", "1024", "4096")
KEPT_TOKENS = {"cached": 16_384, "kept": None}
MOST_KEPT = 512
OUTPUT, CHART = Path(__file__).with_suffix(".csv"), Path(__file__).with_suffix(".svg")


def status(field: str) -> float:
    """Return a size of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (found,) = (int(line.split()[1]) / 1000 for line in lines if line.startswith(field))
    return found


def measure(way: str, size: int) -> dict[str, Any]:
    """Train two steps in this process and return what they took."""
    steps = BareSteps(SETTINGS["short"]["max_length"], KEPT_TOKENS[way], resolve_precision("auto"))
    pairs = [list(pair) for pair in itertools.islice(pairs_of("short", None), size)]
    tokens = 0
    loaded, started = status("VmRSS"), 0.0
    for _ in range(2):
        started = time.perf_counter()
        tokens = steps.take(pairs)
    seconds = time.perf_counter() - started
    peak = status("VmHWM")
    return {
        "way": way, "precision": steps.precision, "pairs": size, "tokens": tokens,
        "peak_mb": round(peak), "above_loaded_mb": round(peak - loaded),
        "pairs_per_second": round(size / seconds, 1), "negatives_per_query": size - 1,
    }  # fmt: skip


def chart(rows: list[dict[str, Any]]) -> None:
    """Draw peak memory against the batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for way, label in (("kept", "all activations kept"), ("cached", "gradient caching beyond 16,384 tokens")):
        its = [row for row in rows if row["way"] == way]
        axes.plot([row["pairs"] for row in its], [row["peak_mb"] / 1000 for row in its], marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["pairs"] for row in rows], [f"{row['pairs']:,}" for row in rows])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pairs a step")
    axes.set_ylabel("peak memory of the process, GB")
    axes.legend()
    figure.savefig(CHART, metadata={"Date": None})


def main(sizes: list[int]) -> None:
    rows = []
    for size, way in itertools.product(sizes, KEPT_TOKENS):
        if way == "cached" or size <= MOST_KEPT:
            command = [sys.executable, __file__, "--measure", way, str(size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    with OUTPUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    chart(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main([int(size) for size in sys.argv[1:] or SIZES])
