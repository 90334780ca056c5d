"""Exact search alone over 10 thousand to 1 million passages: seconds and memory, beside a flat index of faiss.

    python benchmarks/search_growth.py

1,000 queries look for their best 50 among random unit vectors of 384 dimensions that lie memory-mapped in a file
outside this process's memory; each way and size in a fresh process, in turns; the shortest time
and the largest memory of three turns count. ``anonymous_mb`` is the largest growth of
anonymous memory during the search, sampled; pages of the mapped file, which the system takes back when it needs them,
count apart in ``mapped_mb``. The rows of faiss are left out where it cannot be imported (this package does without).
Results go to ``benchmarks/search_growth.csv``.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrofit.negatives.search import top_k

SIZES = (10_000, 100_000, 1_000_000)
QUERIES, DIMENSION, K, MEMORY_MB = 1000, 384, 50, 256
TURNS = 3
OUTPUT = Path(__file__).with_suffix(".csv")


class Mapped:
    """Vectors of a memory-mapped file."""

    def __init__(self, path: Path) -> None:
        self.vectors: np.ndarray = np.load(path, mmap_mode="r")

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return float32 ``[len(positions), DIMENSION]``."""
        return self.vectors[positions]


def write_vectors(path: Path, count: int, seed: int) -> None:
    """Write random unit vectors, float32 ``[count, DIMENSION]``, in blocks."""
    generator = np.random.default_rng(seed)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, DIMENSION))
    for start in range(0, count, 50_000):
        block = generator.standard_normal((min(50_000, count - start), DIMENSION), dtype=np.float32)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)


def with_retrofit(queries: Mapped, passages: Mapped) -> np.ndarray:
    asked, searched = np.arange(len(queries.vectors)), np.arange(len(passages.vectors))
    return top_k(queries, asked, passages, searched, K, MEMORY_MB).passages


def with_faiss(queries: Mapped, passages: Mapped) -> np.ndarray:
    import faiss  # type: ignore[import-not-found]

    index = faiss.IndexFlatIP(DIMENSION)
    for start in range(0, len(passages.vectors), 50_000):
        index.add(np.ascontiguousarray(passages.vectors[start : start + 50_000]))
    found: np.ndarray = index.search(np.ascontiguousarray(queries.vectors), K)[1]
    return found


WAYS: dict[str, Callable[[Mapped, Mapped], np.ndarray]] = {"retrofit": with_retrofit, "faiss_flat": with_faiss}


def resident_mb() -> dict[str, float]:
    """Return anonymous and file-backed memory of this process."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0]: int(line[1]) / 1000 for line in lines if line[0] in ("RssAnon:", "RssFile:")}


def measure(way: str, folder: Path) -> None:
    """Search in this process and print what it took and a sum of what came out."""
    queries, passages = Mapped(folder / "queries.npy"), Mapped(folder / "passages.npy")
    WAYS[way](queries, queries)  # libraries load and start their threads
    before, peak, done = resident_mb(), resident_mb(), threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            for name, value in resident_mb().items():
                peak[name] = max(peak[name], value)

    sampler = threading.Thread(target=sample)
    sampler.start()
    started = time.perf_counter()
    found = WAYS[way](queries, passages)
    seconds = time.perf_counter() - started
    done.set()
    sampler.join()
    np.save(folder / f"{way}.npy", found)
    anonymous, mapped = (round(peak[name] - before[name]) for name in ("RssAnon:", "RssFile:"))
    print(json.dumps({"seconds": round(seconds, 2), "anonymous_mb": anonymous, "mapped_mb": mapped}))


def main() -> None:
    ways = [way for way in WAYS if way == "retrofit" or importlib.util.find_spec("faiss")]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_vectors(folder / "queries.npy", QUERIES, 0)
        for size in SIZES:
            write_vectors(folder / "passages.npy", size, size)
            turns: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(TURNS):
                for way in ways:
                    command = [sys.executable, __file__, "--measure", way, str(folder)]
                    measured = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
                    turns[way].append(json.loads(measured))
            for way in ways:
                both = zip(np.load(folder / "retrofit.npy"), np.load(folder / f"{way}.npy"), strict=True)
                same = np.mean([len(np.intersect1d(ours, theirs)) / K for ours, theirs in both])
                figures = {
                    name: (min if name == "seconds" else max)(t[name] for t in turns[way]) for name in turns[way][0]
                }
                rows.append({"passages": size, "way": way, **figures, "same_as_retrofit": round(float(same), 5)})
                print(rows[-1])
    with OUTPUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
