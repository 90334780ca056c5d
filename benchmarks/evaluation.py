"""Where the time of an evaluation goes: encoding, search and scoring; and its peak memory.

    python benchmarks/evaluation.py [--languages 10] [--queries 1000] [--passages 10000] [WAY …]

The embedded model is measured on the embedded corpus: in each of the languages that ask most, so many queries are
searched in so many passages. The pool of a language has the answers, then its other passages, then passages of other
languages where it has too few; splits do not count. A text that several pools have is encoded once. ``retrofit`` is the
fast path that training measures with, ``mteb`` scores with mteb's own code. Each way runs in a process of its own after
a small evaluation that loads what it needs; ``search`` is all that is neither encoding nor scoring, such as making
mteb's tasks. ``loaded_mb`` and ``peak_mb`` are the process's largest resident size before and after.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retrofit.artefacts import default_cache
from retrofit.commands.application import quiet_libraries
from retrofit.data.embedded.corpus import build_embedded_corpus
from retrofit.data.records import shown_id
from retrofit.data.storage import PairSource
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.embedded_checkpoint import embedded_checkpoint
from retrofit.models.precision import EncodingSettings

TASKS = "tasks.json"
PROMPTS = {"query": "query: ", "passage": "passage: "}
SETTINGS = EncodingSettings.of({"precision": "auto", "token_budget": 2048})
OUTPUT = Path(__file__).with_suffix(".csv")


def make_tasks(languages: int, queries: int, passages: int) -> list[RetrievalTask]:
    """Return a task for each of the languages, of texts in the order of their content hashes."""
    columns = ["query_id", "query", "positive_ids", "positives", "language", "document_language"]
    rows = PairSource.open(build_embedded_corpus(default_cache())).pairs.select(columns).to_pylist()
    rows.sort(key=lambda row: row["query_id"])
    questions: dict[str, dict[str, str]] = {}
    answers: dict[tuple[str, str], dict[str, int]] = {}
    pools: dict[str, dict[str, str]] = {}
    for row in rows:
        language, query_id = row["language"], shown_id(row["query_id"])
        found = dict(zip(map(shown_id, row["positive_ids"]), row["positives"], strict=True))
        pools.setdefault(row["document_language"], {}).update(found)
        if language == row["document_language"]:
            questions.setdefault(language, {})[query_id] = row["query"]
            answers.setdefault((language, query_id), {}).update(dict.fromkeys(found, 1))
    everything = {passage_id: text for pool in pools.values() for passage_id, text in pool.items()}
    chosen = sorted(questions, key=lambda language: -len(questions[language]))[:languages]
    tasks = []
    for language in chosen:
        asked = dict(list(questions[language].items())[:queries])
        qrels = {query_id: answers[language, query_id] for query_id in asked}
        relevant = dict.fromkeys(passage_id for grades in qrels.values() for passage_id in grades)
        ordered = list(dict.fromkeys([*relevant, *pools[language], *everything]))[: max(passages, len(relevant))]
        corpus = {passage_id: everything[passage_id] for passage_id in ordered}
        tasks.append(RetrievalTask("benchmark", "any", language, language, asked, corpus, qrels))
    return tasks


class Clock:
    """Adds up the seconds that calls of a function take.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return call


def with_retrofit(encoder: BiEncoder, tasks: list[RetrievalTask], scoring: Clock) -> float:
    """Return the mean nDCG@10."""
    from retrofit.evaluation import evaluate

    original = evaluate.score_run
    evaluate.score_run = scoring.timed(original)
    try:
        return float(np.mean(evaluate.evaluate(encoder, tasks, SETTINGS)["ndcg_at_10"].to_numpy()))
    finally:
        evaluate.score_run = original


def with_mteb(encoder: BiEncoder, tasks: list[RetrievalTask], scoring: Clock) -> float:
    """Return the mean nDCG@10."""
    from mteb._evaluators import RetrievalEvaluator

    from retrofit.evaluation.mteb_scoring import score_task
    from retrofit.evaluation.text_embeddings import TextEmbeddings

    original = RetrievalEvaluator.evaluate
    RetrievalEvaluator.evaluate = scoring.timed(original)
    embeddings = TextEmbeddings(encoder, SETTINGS, "benchmark")
    try:
        return float(np.mean([score_task(task, embeddings).values["ndcg_at_10"] for task in tasks]))
    finally:
        RetrievalEvaluator.evaluate = original


WAYS: dict[str, Callable[[BiEncoder, list[RetrievalTask], Clock], float]] = {
    "retrofit": with_retrofit,
    "mteb": with_mteb,
}


def peak_mb() -> float:
    """Return the largest resident size of this process so far; ``getrusage`` would count the parent's as well."""
    status = Path("/proc/self/status").read_text()
    (peak,) = (int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:"))
    return peak


def measure(way: str, folder: Path) -> None:
    """Evaluate in this process and write what it took."""
    logging.disable(logging.INFO)
    quiet_libraries()
    tasks = [RetrievalTask(**task) for task in json.loads((folder / TASKS).read_text(encoding="utf-8"))]
    encoder = BiEncoder.load(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512)  # type: ignore[arg-type]
    encoding, scoring = Clock(), Clock()
    WAYS[way](encoder, [first_of(tasks[0])], scoring)
    encoder.encode = encoding.timed(encoder.encode)  # type: ignore[method-assign]
    scoring.seconds, loaded = 0.0, peak_mb()
    started = time.perf_counter()
    score = WAYS[way](encoder, tasks, scoring)
    total = time.perf_counter() - started
    parts = {
        "encoding": encoding.seconds, "search": total - encoding.seconds - scoring.seconds, "scoring": scoring.seconds
    }  # fmt: skip
    result = {
        **{f"{part}_seconds": round(seconds, 2) for part, seconds in parts.items()},
        **{f"{part}_share": round(seconds / total, 4) for part, seconds in parts.items()},
        "loaded_mb": round(loaded), "peak_mb": round(peak_mb()), "ndcg_at_10": round(score, 6),
    }  # fmt: skip
    (folder / f"{way}.json").write_text(json.dumps(result), encoding="utf-8")


def first_of(task: RetrievalTask) -> RetrievalTask:
    """Return a task with the first query alone, and its answers and a few other passages."""
    query_id, text = next(iter(task.queries.items()))
    kept = [*task.qrels[query_id], *list(task.corpus)[:4]]
    corpus = {passage_id: task.corpus[passage_id] for passage_id in kept}
    return dataclasses.replace(task, queries={query_id: text}, corpus=corpus, qrels={query_id: task.qrels[query_id]})


def main(options: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tasks = make_tasks(options.languages, options.queries, options.passages)
        (folder / TASKS).write_text(json.dumps([dataclasses.asdict(task) for task in tasks]), encoding="utf-8")
        counts = {
            "languages": len(tasks),
            "queries": sum(len(task.queries) for task in tasks),
            "passages": sum(len(task.corpus) for task in tasks),
            "different_passages": len({passage_id for task in tasks for passage_id in task.corpus}),
        }
        for way in options.ways or WAYS:
            subprocess.run([sys.executable, __file__, "--measure", way, str(folder)], check=True)
            rows.append({"way": way, **counts, **json.loads((folder / f"{way}.json").read_text(encoding="utf-8"))})
            print(rows[-1], flush=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1000, help="of each language")
    parser.add_argument("--passages", type=int, default=10_000, help="of each language, unless more are relevant")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(parsed())
