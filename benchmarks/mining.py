"""Mining hard negatives with this package and with sentence-transformers: time, peak memory, and the same negatives.

    python benchmarks/mining.py [QUERIES PASSAGES [WAYS …]]

The embedded model mines for QUERIES pairs of the embedded corpus in PASSAGES different passages, all in one pool. Every
way runs in a process of its own, loads the model and encodes everything; options mean the same. Peak memory is the
process's largest resident size. ``sentence_transformers`` has the library's default settings;
``sentence_transformers_best`` has weights in bfloat16 and batches of 128. ``retrofit`` computes in bfloat16 where the
CPU does, which is its default; ``retrofit_float32`` shows that what differs in its negatives is that.
"""

from __future__ import annotations

import csv
import functools
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

DEFAULT_QUERIES, DEFAULT_PASSAGES = "1000", "5000"
MARGIN, NEGATIVES, CANDIDATES = 0.02, 5, 50
PROMPTS = {"query": "query: ", "passage": "passage: "}
OUTPUT = Path(__file__).with_suffix(".csv")


def write_source(folder: Path, queries: int, passages: int) -> None:
    """Write a source of so many pairs: different queries, different passages, labelled as one language.

    The first ``queries`` of them are mined for; the others lend their passages.
    """
    pairs: list[Pair] = []
    seen: set[str] = set()
    for row in PairSource.open(build_embedded_corpus(default_cache())).pairs.to_pylist():
        query, passage = row["query"], row["positives"][0]
        if passage not in seen and (len(pairs) >= queries or query not in seen):
            seen |= {query, passage}
            pairs.append(Pair(query, (passage,), "any", "xx", "xx", "embedded", str(len(pairs)), "train"))
        if len(pairs) == passages:
            break
    if len(pairs) < passages:
        raise SystemExit(f"the embedded corpus has {len(pairs)} such passages")
    write_pairs(folder / PAIRS, pairs)
    (folder / REPORT).write_text("{}", encoding="utf-8")


def with_retrofit(folder: Path, queries: int, precision: str = "auto") -> list[list[str]]:
    """Return the negatives of every query."""
    from retrofit.data.curation.artefact import Curation
    from retrofit.data.storage import RowReader
    from retrofit.data.training_data import TrainingData
    from retrofit.models.precision import EncodingSettings
    from retrofit.models.search_model import SearchModel
    from retrofit.negatives.mining import mine

    source = PairSource.open(folder)
    data = TrainingData(
        source, Curation(np.arange(len(source.pairs)), source.pairs.slice(0, 0), {}), np.arange(queries)
    )
    model = SearchModel(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512)  # type: ignore[arg-type]
    settings = {
        "per_query": 1, "count": NEGATIVES, "search": "dense", "pool": "source", "languages": "same",
        "candidates": CANDIDATES, "first_rank": 1, "max_score": None, "margin": MARGIN, "share": None,
        "near_duplicates": None, "reranker": None, "veto": None, "sampling": "top", "fill": False, "seed": 0,
        "memory_mb": 256,
    }  # fmt: skip
    encoding = EncodingSettings.of({"precision": precision, "token_budget": 1024})
    homes = mine(data, model, settings, encoding, folder / "cache").homes
    there = homes[..., 0] >= 0
    texts = iter(RowReader(source.pairs.select(["positives"])).rows(homes[..., 0][there]))
    return [[next(texts)["positives"][0] for _ in range(count)] for count in there.sum(axis=1).tolist()]


def with_sentence_transformers(folder: Path, queries: int, best: bool = False) -> list[list[str]]:
    """Return the negatives of every query."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    pairs = PairSource.open(folder).pairs
    asked = {
        "query": pairs["query"].slice(0, queries).to_pylist(),
        "answer": [positives[0] for positives in pairs["positives"].slice(0, queries).to_pylist()],
    }
    others = [positives[0] for positives in pairs["positives"].slice(queries).to_pylist()]
    model = SentenceTransformer(
        str(embedded_checkpoint(default_cache())), device="cpu", model_kwargs={"dtype": "bfloat16"} if best else {}
    )
    mined = mine_hard_negatives(
        Dataset.from_dict(asked), model, corpus=others, relative_margin=MARGIN,
        num_negatives=NEGATIVES, range_max=CANDIDATES, sampling_strategy="top", output_format="triplet",
        query_prompt=PROMPTS["query"], corpus_prompt=PROMPTS["passage"], verbose=False,
        **({"batch_size": 128} if best else {}),
    )  # fmt: skip
    by_query: dict[str, list[str]] = {query: [] for query in asked["query"]}
    for row in mined:
        by_query[row["query"]].append(row["negative"])
    return list(by_query.values())


WAYS: dict[str, Callable[[Path, int], list[list[str]]]] = {
    "sentence_transformers": with_sentence_transformers,
    "sentence_transformers_best": functools.partial(with_sentence_transformers, best=True),
    "retrofit": with_retrofit,
    "retrofit_float32": functools.partial(with_retrofit, precision="float32"),
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


def shared(theirs: list[list[str]], ours: list[list[str]]) -> float:
    """Return the mean share of a query's negatives that both found."""
    both = zip(theirs, ours, strict=True)
    return float(
        np.mean([len(set(one) & set(other)) / max(len(one), len(other)) for one, other in both if one or other])
    )


def main(queries: int, passages: int, ways: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_source(folder, queries, passages)
        found = {}
        for way in ways:
            command = [sys.executable, __file__, "--measure", way, str(folder), str(queries)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found[way] = json.loads((folder / f"{way}.json").read_text(encoding="utf-8"))
            print(way, round(found[way]["seconds"], 1), round(found[way]["peak_mb"]), flush=True)
    theirs = found[ways[0]]
    rows = [
        {
            "queries": queries, "passages": passages, "way": way, "seconds": round(result["seconds"], 1),
            "peak_mb": round(result["peak_mb"]), "negatives": sum(map(len, result["negatives"])),
            "times_as_fast": round(theirs["seconds"] / result["seconds"], 2),
            "share_of_memory": round(result["peak_mb"] / theirs["peak_mb"], 2),
            "same_negatives": round(shared(theirs["negatives"], result["negatives"]), 3),
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
        counts = sys.argv[1:3] if len(sys.argv) > 2 else (DEFAULT_QUERIES, DEFAULT_PASSAGES)
        main(*map(int, counts), ways=sys.argv[3:] or list(WAYS))
