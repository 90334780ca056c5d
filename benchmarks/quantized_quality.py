"""What int8 costs: nDCG@10 and cosines of the embedded model in float32, bfloat16 and int8.

    python benchmarks/quantized_quality.py [--experiment short]

The suites are those of ``retrofit train experiment=…``, on the test split, with the model as it is before training.
Queries and passages are quantised apart, each with its ranges from 200 of the texts themselves, as ``retrofit encode``
does. ``change`` is the mean difference of a query's nDCG@10 to float32, and ``standard_error`` that of this mean over
the queries; ``cosine_mean`` and ``cosine_min`` compare the vectors of the suite's texts with those in float32. Needs
the extra ``openvino``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrofit.artefacts import ArtefactStore, default_cache
from retrofit.commands.application import as_dictionary, configuration_folder, quiet_libraries, register_resolvers
from retrofit.data.embedded.corpus import build_embedded_corpus
from retrofit.data.storage import PairSource
from retrofit.evaluation.evaluate import evaluate
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs
from retrofit.models.bi_encoder import Kind
from retrofit.models.precision import EncodingSettings, resolve_precision
from retrofit.models.search_model import SearchModel

PRECISIONS = ("float32", "bfloat16", "int8")
CALIBRATION_TEXTS = 200
TOKEN_BUDGET = 2048
OUTPUT = Path(__file__).with_suffix(".csv")

Vectors = dict[tuple[Kind, str], np.ndarray]


class Encoded:
    """Stands for an encoder whose vectors are known."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def encode(self, texts: Sequence[str], kind: Kind, *_: object, **__: object) -> np.ndarray:
        """Return the vectors of texts, float32 ``[len(texts), dimension]``."""
        return np.stack([self.vectors[kind, text] for text in texts])


def configuration(experiment: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    register_resolvers()
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        return as_dictionary(compose("train", [f"experiment={experiment}"]))


def texts_of(tasks: Sequence[RetrievalTask]) -> dict[Kind, list[str]]:
    """Return the different texts of tasks."""
    return {
        "query": list(dict.fromkeys(text for task in tasks for text in task.queries.values())),
        "passage": list(dict.fromkeys(text for task in tasks for text in task.corpus.values())),
    }


def embed(model: SearchModel, precision: str, texts: Mapping[Kind, list[str]]) -> Vectors:
    vectors: Vectors = {}
    for kind, its_texts in texts.items():
        if precision == "int8":
            chosen = np.unique(np.linspace(0, len(its_texts) - 1, CALIBRATION_TEXTS, dtype=int))
            calibration = [its_texts[position] for position in chosen]
            encoder: Any = model.load_quantized(calibration, kind, ArtefactStore(default_cache()))
            products = resolve_precision("auto")
        else:
            products = precision  # type: ignore[assignment]
            encoder = model.load(products)
        found = encoder.encode(its_texts, kind, TOKEN_BUDGET, products, label="")
        vectors |= {(kind, text): vector for text, vector in zip(its_texts, found, strict=True)}
    return vectors


def main(experiment: str) -> None:
    quiet_libraries()
    config = configuration(experiment)
    source = PairSource.open(build_embedded_corpus(default_cache()))
    suites: dict[str, list[RetrievalTask]] = {}
    for suite, specification in config["evaluation"]["suites"].items():
        arguments = {name: value for name, value in specification.items() if name not in ("kind", "source")}
        suites[suite] = tasks_from_pairs(source, suite, "test", **arguments)
    texts = texts_of([task for tasks in suites.values() for task in tasks])
    print({kind: len(its_texts) for kind, its_texts in texts.items()})
    model = SearchModel.of(config["model"])
    vectors = {precision: embed(model, precision, texts) for precision in PRECISIONS}
    rows = []
    for suite, tasks in suites.items():
        keys = [(kind, text) for kind, its_texts in texts_of(tasks).items() for text in its_texts]
        scores = {}
        for precision, its_vectors in vectors.items():
            results = evaluate(Encoded(its_vectors), tasks, EncodingSettings())  # type: ignore[arg-type]
            scores[precision] = results["ndcg_at_10"].to_numpy()
            change = scores[precision] - scores["float32"]
            cosine = [float(its_vectors[key] @ vectors["float32"][key]) for key in keys]
            rows.append(
                {
                    "suite": suite, "precision": precision, "queries": len(change), "texts": len(keys),
                    "ndcg_at_10": round(float(scores[precision].mean()), 4), "change": round(float(change.mean()), 4),
                    "standard_error": round(float(change.std(ddof=1)) / len(change) ** 0.5, 4),
                    "cosine_mean": round(float(np.mean(cosine)), 5), "cosine_min": round(min(cosine), 5),
                }
            )  # fmt: skip
    with OUTPUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="short", help="whose suites: short, or embedded for the whole ones")
    main(parser.parse_args().experiment)
