"""Models measured on suites: what is said before work starts, and what is written of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.evaluation.beir_folders import beir

from retrofit.artefacts import write_json
from retrofit.data.curation.decontamination import Decontamination
from retrofit.errors import UserError
from retrofit.evaluation import leakage, model_evaluation
from retrofit.evaluation.evaluated_model import EvaluatedModel
from retrofit.evaluation.leakage import TrainingTexts
from retrofit.evaluation.model_evaluation import evaluate_models
from retrofit.models.bm25 import Bm25

PASSAGES = ["Der Akku ist leer.", "Das Licht in der Küche ist an."]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A configuration with two folders as suites."""
    corpus = [{"_id": f"p{number}", "text": text, "lang": "de"} for number, text in enumerate(PASSAGES)]
    queries = [{"_id": "q0", "text": "Wo ist das Licht an?", "lang": "de"}]
    folders = [
        str(beir(tmp_path / name, corpus, queries, "query-id\tcorpus-id\tscore\nq0\tp1\t1\n"))
        for name in ("notes", "pages")
    ]
    return {
        "reference": None, "folders": folders, "output": str(tmp_path / "results"),
        "leakage": {"exact": True, "near": 0.8, "shared_run": 50, "run_share": 0.5},
        "paths": {"cache": str(tmp_path / "cache"), "runs": str(tmp_path / "runs")},
        "evaluation": {
            "precision": "float32", "token_budget": 64, "sources": {}, "suites": {}, "benchmark": None,
        },
    }  # fmt: skip


def trained(run: Path) -> EvaluatedModel:
    """A model that a run is said to have trained: BM25, which is measured in no time."""
    run.mkdir()
    model = dict.fromkeys(("name", "checkpoint", "pooling", "prompts", "max_length"))
    config = {"seed": 0, "negatives": {"mined": None}, "engine": None, "model": model, "paths": {"cache": "elsewhere"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    bm25 = Bm25(2, 4)
    return EvaluatedModel("ours", "runs/ours", bm25, bm25.prompts, run)


def test_a_run_without_an_account_of_its_data_is_refused_before_anything_is_measured(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data_manifest\.json: expected the account"):
        evaluate_models(config, [trained(tmp_path / "run")])
    assert not (tmp_path / "cache" / "model_scores").exists()


def test_the_training_texts_of_a_model_are_indexed_once_for_all_suites(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, indexed = trained(tmp_path / "run"), []
    strata = [{"task": "help", "language": "de", "document_language": "de"}]
    write_json(tmp_path / "run" / "data_manifest.json", {"pairs_by_task_and_language": strata})
    monkeypatch.setattr(model_evaluation, "training_texts", lambda run, cache: TrainingTexts.of([PASSAGES[1]]))

    def index(*arguments: Any) -> Decontamination:
        indexed.append(arguments)
        return Decontamination(*arguments)

    monkeypatch.setattr(leakage, "Decontamination", index)
    folder = evaluate_models(config, [model])
    leaks = pd.read_csv(folder / "leakage.csv").set_index("suite")
    assert leaks[["model", "passages", "passages_in_training", "queries_in_training"]].to_dict("index") == {
        suite: {"model": "ours", "passages": 1, "passages_in_training": 1, "queries_in_training": 0}
        for suite in ("notes", "pages")
    }
    assert pd.read_csv(folder / "training.csv").to_numpy().tolist() == [["ours", "help", "de", "de"]]
    assert len(indexed) == 1


def test_items_have_what_they_belong_together_by(config: dict[str, Any], tmp_path: Path) -> None:
    corpus = [
        {"_id": "p0", "text": PASSAGES[0], "lang": "de", "group": "page"},
        {"_id": "p1", "text": PASSAGES[1], "lang": "de"},
    ]
    queries = [{"_id": f"q{number}", "text": f"Wo ist das Licht {number}?", "lang": "de"} for number in range(3)]
    qrels = "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t1\nq2\tp0\t1\n"
    config["folders"] = [str(beir(tmp_path / "grouped", corpus, queries, qrels))]
    bm25 = Bm25(2, 4)
    folder = evaluate_models(config, [EvaluatedModel("bm25", "bm25", bm25, bm25.prompts, None)])
    items = pd.read_parquet(folder / "scores.parquet").drop_duplicates("item_id").set_index("item_id")
    assert items["item_group"].to_dict() == {"q0": "page", "q1": "p1", "q2": "page"}
