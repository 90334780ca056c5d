"""Mining side by side with ``sentence_transformers.util.mine_hard_negatives``: seconds, peak memory, same negatives.

    python benchmarks/mining.py [QUERIES [PASSAGES]]

All ways mine up to five negatives for each of the same queries of the embedded corpus (5,000 by default, each with a
passage of its own that answers it) in the same passages (by default those that answer; more come from further pairs),
with a relative margin of .02 among the best 50 passages, with the same model, each in a fresh process, encoding
counted. sentence-transformers runs as it does by default, and with what speeds it up on a CPU: bfloat16 weights where
the CPU computes in them, larger batches, and faiss where it can be imported. ``same_negatives`` is the share that a way
has in common with sentence-transformers by default. Results are added to ``benchmarks/mining.csv``.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrofit.artefacts import default_cache
from retrofit.data.embedded.corpus import build_embedded_corpus
from retrofit.data.records import Pair
from retrofit.data.storage import PAIRS, REPORT, PairSource, write_pairs
from retrofit.models.embedded_checkpoint import embedded_checkpoint

DEFAULT_QUERIES = 5000
MARGIN, NEGATIVES, CANDIDATES = 0.02, 5, 50
PROMPTS = {"query": "query: ", "passage": "passage: "}
OUTPUT = Path(__file__).with_suffix(".csv")


def write_source(folder: Path, count: int) -> None:
    """Write a source of so many pairs: different queries, different passages, labelled as one language."""
    pairs: list[Pair] = []
    seen: set[str] = set()
    table = PairSource.open(build_embedded_corpus(default_cache())).pairs
    for batch in table.select(["query", "positives"]).to_batches(10_000):
        for row in batch.to_pylist():
            query, passage = row["query"], row["positives"][0]
            if len(pairs) < count and query != passage and not {query, passage} & seen:
                seen |= {query, passage}
                pairs.append(Pair(query, (passage,), "any", "xx", "xx", "embedded", str(len(pairs)), "train"))
    if len(pairs) < count:
        raise SystemExit(f"the embedded corpus has {len(pairs)} such pairs")
    write_pairs(folder / PAIRS, pairs)
    (folder / REPORT).write_text("{}", encoding="utf-8")


def with_retrofit(folder: Path, queries: int) -> list[list[str]]:
    """Return the negatives of the first pairs, searched in the passages of all."""
    from retrofit.data.curation.artefact import Curation
    from retrofit.data.training_data import TrainingData
    from retrofit.models.precision import EncodingSettings
    from retrofit.negatives.mining import SearchModel, mine

    source = PairSource.open(folder)
    every, rows = np.arange(len(source.pairs)), np.arange(queries)
    data = TrainingData(source, Curation(every, source.pairs.slice(0, 0), {}), rows)
    model = SearchModel(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512)  # type: ignore[arg-type]
    settings = {
        "per_query": 1, "count": NEGATIVES, "search": "dense", "languages": "same", "candidates": CANDIDATES,
        "first_rank": 1, "max_score": None, "margin": MARGIN, "sampling": "top", "fill": False, "seed": 0,
        "memory_mb": 256, "pool": "source",
    }  # fmt: skip
    encoding = EncodingSettings.of({"precision": "auto", "token_budget": 1024})
    mined = mine(data, model, settings, encoding, folder / "cache")
    found = []
    for homes in mined.homes:
        found.append([source.pairs["positives"][int(row)][int(slot)].as_py() for row, slot in homes if row >= 0])
    return found


def with_sentence_transformers(folder: Path, queries: int, tuned: bool) -> list[list[str]]:
    """Return the negatives of the first pairs, searched in the passages of all."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    from retrofit.models.precision import resolve_precision

    table = PairSource.open(folder).pairs
    asked = table["query"].slice(0, queries).to_pylist()
    passages = [positives[0] for positives in table["positives"].to_pylist()]
    weights = {"dtype": resolve_precision("auto")} if tuned else {}
    model = SentenceTransformer(str(embedded_checkpoint(default_cache())), device="cpu", model_kwargs=weights)
    options = {"batch_size": 128, "use_faiss": importlib.util.find_spec("faiss") is not None} if tuned else {}
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": asked, "answer": passages[:queries]}), model, corpus=passages,
        relative_margin=MARGIN, num_negatives=NEGATIVES, range_max=CANDIDATES, sampling_strategy="top",
        output_format="triplet", query_prompt=PROMPTS["query"], corpus_prompt=PROMPTS["passage"], verbose=False,
        **options,
    )  # fmt: skip
    by_query: dict[str, list[str]] = {query: [] for query in asked}
    for row in mined:
        by_query[row["query"]].append(row["negative"])
    return list(by_query.values())


WAYS: dict[str, Callable[[Path, int], list[list[str]]]] = {
    "sentence_transformers": functools.partial(with_sentence_transformers, tuned=False),
    "sentence_transformers_tuned": functools.partial(with_sentence_transformers, tuned=True),
    "retrofit": with_retrofit,
}


def measure(way: str, folder: Path, queries: int) -> None:
    """Mine in this process and write what came out, how long it took and the peak of memory."""
    logging.disable(logging.INFO)
    started = time.perf_counter()
    negatives = WAYS[way](folder, queries)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    (peak,) = (int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:"))
    result = {"seconds": seconds, "peak_mb": peak, "negatives": negatives}
    (folder / f"{way}.json").write_text(json.dumps(result), encoding="utf-8")


def share_of_same(theirs: list[list[str]], ours: list[list[str]]) -> float:
    """Return the mean over queries of the share of negatives that two ways have in common."""
    both = zip(theirs, ours, strict=True)
    return float(np.mean([len({*a} & {*b}) / max(len(a), len(b)) for a, b in both if a or b]))


def main(queries: int, passages: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_source(folder, passages)
        found = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", way, str(folder), str(queries)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found[way] = json.loads((folder / f"{way}.json").read_text(encoding="utf-8"))
    theirs = found["sentence_transformers"]
    rows = [
        {
            "queries": queries, "passages": passages, "way": way, "seconds": round(result["seconds"], 1),
            "peak_mb": round(result["peak_mb"]), "negatives": sum(map(len, result["negatives"])),
            "times_as_fast": round(theirs["seconds"] / result["seconds"], 2),
            "share_of_memory": round(result["peak_mb"] / theirs["peak_mb"], 2),
            "same_negatives": round(share_of_same(theirs["negatives"], result["negatives"]), 3),
        }
        for way, result in found.items()
    ]  # fmt: skip
    new = not OUTPUT.exists()
    with OUTPUT.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        numbers = [int(argument) for argument in sys.argv[1:3]] or [DEFAULT_QUERIES]
        main(numbers[0], max(numbers))
