"""Mining side by side with ``sentence_transformers.util.mine_hard_negatives``: seconds, peak memory, same negatives.

    python benchmarks/mining.py [PAIRS]

Both mine up to five negatives for each of the same pairs of the embedded corpus (5,000 by default, each with a
query and a passage of its own), with a relative margin of .02 among the best 50 passages, with the same model, each
in a fresh process, encoding counted. Theirs encodes as it does by default; ours, as ``retrofit mine`` does. Results
are added to ``benchmarks/mining.csv``.
"""

from __future__ import annotations

import csv
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

DEFAULT_PAIRS = "5000"
MARGIN, NEGATIVES, CANDIDATES = 0.02, 5, 50
PROMPTS = {"query": "query: ", "passage": "passage: "}
OUTPUT = Path(__file__).with_suffix(".csv")


def write_source(folder: Path, count: int) -> None:
    """Write a source of so many pairs: different queries, different passages, labelled as one language."""
    pairs: list[Pair] = []
    seen: set[str] = set()
    for row in PairSource.open(build_embedded_corpus(default_cache())).pairs.to_pylist():
        query, passage = row["query"], row["positives"][0]
        if not {query, passage} & seen:
            seen |= {query, passage}
            pairs.append(Pair(query, (passage,), "any", "xx", "xx", "embedded", str(len(pairs)), "train"))
        if len(pairs) == count:
            break
    if len(pairs) < count:
        raise SystemExit(f"the embedded corpus has {len(pairs)} such pairs")
    write_pairs(folder / PAIRS, pairs)
    (folder / REPORT).write_text("{}", encoding="utf-8")


def with_retrofit(folder: Path) -> list[list[str]]:
    """Return the negatives of every pair."""
    from retrofit.data.curation.artefact import Curation
    from retrofit.data.training_data import TrainingData
    from retrofit.models.precision import EncodingSettings
    from retrofit.negatives.mining import SearchModel, mine

    source = PairSource.open(folder)
    rows = np.arange(len(source.pairs))
    data = TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows)
    model = SearchModel(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512)  # type: ignore[arg-type]
    settings = {
        "per_query": 1, "count": NEGATIVES, "search": "dense", "languages": "same", "candidates": CANDIDATES,
        "first_rank": 1, "max_score": None, "margin": MARGIN, "sampling": "top", "fill": False, "seed": 0,
        "memory_mb": 256,
    }  # fmt: skip
    encoding = EncodingSettings.of({"precision": "auto", "token_budget": 2048})
    mined = mine(data, model, settings, encoding, folder / "cache")
    found = []
    for homes in mined.homes:
        found.append([source.pairs["positives"][int(row)][int(slot)].as_py() for row, slot in homes if row >= 0])
    return found


def with_sentence_transformers(folder: Path) -> list[list[str]]:
    """Return the negatives of every pair."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    pairs = PairSource.open(folder).pairs.to_pylist()
    model = SentenceTransformer(str(embedded_checkpoint(default_cache())), device="cpu")
    asked = {"query": [pair["query"] for pair in pairs], "answer": [pair["positives"][0] for pair in pairs]}
    mined = mine_hard_negatives(
        Dataset.from_dict(asked), model, relative_margin=MARGIN,
        num_negatives=NEGATIVES, range_max=CANDIDATES, sampling_strategy="top", output_format="triplet",
        query_prompt=PROMPTS["query"], corpus_prompt=PROMPTS["passage"], verbose=False,
    )  # fmt: skip
    by_query: dict[str, list[str]] = {query: [] for query in asked["query"]}
    for row in mined:
        by_query[row["query"]].append(row["negative"])
    return list(by_query.values())


WAYS: dict[str, Callable[[Path], list[list[str]]]] = {
    "sentence_transformers": with_sentence_transformers,
    "retrofit": with_retrofit,
}


def measure(way: str, folder: Path) -> None:
    """Mine in this process and write what came out, how long it took and the peak of memory."""
    logging.disable(logging.INFO)
    started = time.perf_counter()
    negatives = WAYS[way](folder)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    (peak,) = (int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:"))
    result = {"seconds": seconds, "peak_mb": peak, "negatives": negatives}
    (folder / f"{way}.json").write_text(json.dumps(result), encoding="utf-8")


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_source(folder, count)
        found = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", way, str(folder)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found[way] = json.loads((folder / f"{way}.json").read_text(encoding="utf-8"))
    theirs, ours = (found[way] for way in WAYS)
    both = zip(theirs["negatives"], ours["negatives"], strict=True)
    shared = [len(set(one) & set(other)) / max(1, len(one), len(other)) for one, other in both if one or other]
    rows = [
        {
            "pairs": count, "way": way, "seconds": round(result["seconds"], 1),
            "peak_mb": round(result["peak_mb"]), "negatives": sum(map(len, result["negatives"])),
            "times_as_fast": round(theirs["seconds"] / result["seconds"], 2),
            "share_of_memory": round(result["peak_mb"] / theirs["peak_mb"], 2),
            "same_negatives": round(float(np.mean(shared)), 3),
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
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PAIRS))
