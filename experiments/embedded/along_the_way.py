"""Gain and loss along the way from the base to a run's adapter, on validation data and on training parts of folders.

    python experiments/embedded/along_the_way.py RUN 0,0.3,0.6,1 FOLDER [FOLDER ...]

A folder holds ``train.jsonl.gz`` with the fields ``query``, ``positive`` and ``lang``. Its first 150 rows by hash of
the query become queries, searched in their own positives. Nothing of a test split is read. The figures of docs/LOG.md
on interpolation, mixing and the anchor come from here; a row a weight is printed as CSV.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import peft
import yaml

from retrofit.data.records import content_id, shown_id
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import evaluate
from retrofit.evaluation.summary import METRIC_COLUMNS, metrics_frame, suite_mean
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs
from retrofit.instantiation import instantiate
from retrofit.models.adapters import interpolate, merged_weights
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.precision import EncodingSettings, resolve_precision

QUERIES = 150


def question_set(folder: Path) -> RetrievalTask:
    """Return a retrieval task made of the training part of a folder."""
    with gzip.open(folder / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = sorted((json.loads(line) for line in lines), key=lambda row: content_id(row["query"]))[:QUERIES]
    queries, corpus, qrels = {}, {}, {}
    for row in rows:
        query_id, passage_id = shown_id(content_id(row["query"], "q")), shown_id(content_id(row["positive"]))
        queries[query_id], corpus[passage_id] = row["query"], row["positive"]
        qrels.setdefault(query_id, {})[passage_id] = 1
    return RetrievalTask("question_sets", folder.name, rows[0]["lang"], rows[0]["lang"], queries, corpus, qrels)


def main() -> None:
    run, weights, *folders = sys.argv[1:]
    config = yaml.safe_load((Path(run) / "config.yaml").read_text(encoding="utf-8"))
    model, suite = config["model"], config["evaluation"]["suites"]["held_out"]
    source = PairSource.open(Path(instantiate(config["data_source"]["pairs"])))
    tasks = tasks_from_pairs(source, "held_out", "validation", suite["tasks"], suite["pool"], 20, 100)
    tasks += [question_set(Path(folder)) for folder in folders]

    def load() -> BiEncoder:
        checkpoint = Path(instantiate(model["checkpoint"]))
        attention = config["trainer"]["attention"]
        return BiEncoder.load(checkpoint, model["pooling"], model["prompts"], model["max_length"], attention)

    encoder, adapted = load(), load()
    base = {name: tensor.clone() for name, tensor in encoder.backbone.state_dict().items()}
    adapted.backbone = peft.PeftModel.from_pretrained(adapted.backbone, str(Path(run) / "adapter"))
    retrofitted = merged_weights(adapted)
    settings = EncodingSettings(resolve_precision(config["evaluation"]["precision"]), 2048)
    print("weight,held_out,question_sets," + ",".join(Path(folder).name for folder in folders))
    for weight in map(float, weights.split(",")):
        encoder.backbone.load_state_dict(interpolate(base, retrofitted, weight))
        metrics = metrics_frame({"model": evaluate(encoder, tasks, settings)}, trained_on=())[list(METRIC_COLUMNS)]
        sets = metrics[(metrics["suite"] == "question_sets") & (metrics["metric"] == "ndcg_at_10")].set_index("task")
        figures = [suite_mean(metrics, "model", "held_out"), sets["value"].mean()]
        figures += [sets["value"][Path(folder).name] for folder in folders]
        print(f"{weight:g}," + ",".join(f"{figure:.4f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
