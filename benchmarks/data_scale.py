"""Memory and start-up time of selection and sampling for 10 thousand, 1 million and 10 million pairs.

    python benchmarks/data_scale.py [FOLDER]

Writes synthetic pairs into FOLDER (a temporary one by default; 10 million take about 9 GB). Then, in a fresh
process for each measurement, opens them, selects the training pairs of eight languages, lays out one epoch and
reads 200 batches of 64. Beside it what a user would do with ``datasets`` alone: map a file of the same pairs,
filter, shuffle, read 200 batches. The anonymous memory is what the process itself holds; mapped file pages belong
to the system and can be dropped. Results go to ``benchmarks/data_scale.csv``.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from retrofit.data.records import Pair
from retrofit.data.splits import split_of
from retrofit.data.storage import PAIRS, read_records, write_pairs

SIZES = (10_000, 1_000_000, 10_000_000)
LANGUAGES = ("de", "en", "es", "fr", "it", "ja", "ru", "zh", "pl", "tr", "ko", "ar")
SELECTED = LANGUAGES[:8]
BATCH_SIZE = 64
BATCHES = 200
DATASETS_FILE = "datasets.arrow"
OUTPUT = Path(__file__).with_suffix(".csv")


def synthetic_pairs(count: int) -> Iterator[Pair]:
    """Yield pairs of about 50 words, skewed over 12 languages and 3 tasks, a tenth of the queries asked twice."""
    generator = random.Random(0)  # noqa: S311 -- made-up text, not a secret
    words = [f"word{number}" for number in range(5000)]
    weights = [1 / (place + 1) for place in range(len(LANGUAGES))]
    for number in range(count):
        language = generator.choices(LANGUAGES, weights)[0]
        asked = number if generator.random() > 0.1 else generator.randrange(number + 1)
        passage = f"{number} " + " ".join(generator.choices(words, k=40))
        task = f"task {generator.randrange(3)}"
        group = str(number % 100_003)
        yield Pair(f"{asked} what is this", (passage,), task, language, language, "synthetic", group, split_of(group))


def with_retrofit(path: Path) -> Callable[[int], int]:
    """Return a function of the step that reads its batch, and says how many pairs there were."""
    import numpy as np

    from retrofit.data.batching import PlannedBatches
    from retrofit.data.sampling import Mixture, SamplingPlan
    from retrofit.data.selection import cap_per_language, select, strata

    table = read_records(path)
    rows = select(table, "train", None, SELECTED)
    rows = np.intersect1d(rows, rows, assume_unique=True)  # as with what curation keeps
    rows = cap_per_language(table, rows, len(table), seed=0)  # large enough to keep all, so that the draw is paid for
    plan = SamplingPlan(strata(table, rows), BATCH_SIZE, len(rows) // BATCH_SIZE, Mixture(), seed=0)
    batches = PlannedBatches(table, plan, lambda texts, _kind: [[len(text)] for text in texts])
    return lambda step: batches[step % len(batches)].n_queries


def with_datasets(path: Path) -> Callable[[int], int]:
    """The same with ``datasets`` alone: a random order of what a filter leaves, no plan and no relevance."""
    from datasets import Dataset

    dataset = Dataset.from_file(str(path.with_name(DATASETS_FILE)))
    wanted = set(SELECTED)
    dataset = dataset.filter(
        lambda splits, languages: [s == "train" and n in wanted for s, n in zip(splits, languages, strict=True)],
        batched=True,
        input_columns=["split", "language"],
    ).shuffle(seed=0)

    def read(step: int) -> int:
        start = step * BATCH_SIZE % (len(dataset) - BATCH_SIZE)
        return len(dataset[start : start + BATCH_SIZE]["query"])

    return read


def write_for_datasets(path: Path) -> None:
    """Write the same pairs in the format ``datasets`` maps: a stream, its labels as plain strings."""
    import pyarrow as pa

    table = read_records(path)
    plain = pa.schema([pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema])
    with pa.OSFile(str(path.with_name(DATASETS_FILE)), "wb") as file, pa.ipc.new_stream(file, plain) as stream:
        for batch in table.to_batches():
            stream.write_table(pa.Table.from_batches([batch]).cast(plain))


WAYS = {"retrofit": with_retrofit, "datasets": with_datasets}


def megabytes(field: str) -> float:
    """Return a memory figure of this process, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1000
    raise KeyError(field)


def measure(way: str, path: Path) -> dict[str, float]:
    """Return times in seconds and memory in megabytes of one way to read a file, in this process."""
    import datasets
    import torch  # noqa: F401 -- imports are not what is measured

    datasets.disable_progress_bars()
    imported, anonymous, done = megabytes("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            anonymous[0] = max(anonymous[0], megabytes("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    read = WAYS[way](path)
    pairs = read(0)
    ready = time.perf_counter()
    pairs = sum(read(step) for step in range(1, BATCHES + 1))
    finished = time.perf_counter()
    held = megabytes("RssAnon")
    done.set()
    watcher.join()
    return {
        "start_seconds": ready - started,
        "pairs_per_second": pairs / (finished - ready),
        "peak_anonymous_mb": anonymous[0] - imported,
        "held_anonymous_mb": held - imported,
    }


def main(folder: Path) -> None:
    rows = []
    for size in SIZES:
        path = folder / str(size) / PAIRS
        path.parent.mkdir(exist_ok=True, parents=True)
        if not path.exists():
            started = time.perf_counter()
            write_pairs(path, synthetic_pairs(size))
            write_for_datasets(path)
            print(f"{size} pairs written in {time.perf_counter() - started:.0f} s", flush=True)
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", way, str(path)]
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            row = {
                "pairs": size, "way": way, "file_mb": round(path.stat().st_size / 1e6),
                **{name: round(value, 2) for name, value in measured.items()},
                "peak_bytes_a_pair": round(measured["peak_anonymous_mb"] * 1e6 / size, 1),
            }  # fmt: skip
            rows.append(row)
            print(row, flush=True)
    with OUTPUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
