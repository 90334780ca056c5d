"""The main job on the real model and real text, short: ``experiment=short``."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrofit.models.bi_encoder import BiEncoder
from retrofit.training.on_folders import evaluate_on_folders
from retrofit.training.run_folder import RunFolder

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "retrofit", "train", "experiment=short", f"paths.runs={runs}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Queries to look at" in done.stdout
    [folder] = (runs / "short").iterdir()
    return RunFolder(folder)


def ndcg(run: RunFolder) -> pd.DataFrame:
    metrics = pd.read_csv(run.path / "metrics.csv")
    return metrics[metrics["metric"] == "ndcg_at_10"]


def test_it_finds_more_in_held_out_integrations_and_keeps_the_rest(run: RunFolder) -> None:
    assert run.is_finished
    headline = json.loads((run.path / "metrics.json").read_text())["headline"]
    assert headline["held_out"]["gain"] > 0.01
    assert headline["retention_leads"]["gain"] > -0.02
    values = ndcg(run)
    seen = values[(values["suite"] == "held_out") & values["seen_in_training"]]
    assert set(seen["query_language"]) == {"en", "de", "fr", "es", "it", "pt", "nl", "ru", "ja", "zh-Hans"}
    assert values[values["suite"] == "held_out"]["query_language"].nunique() == 31


def test_the_exported_model_gives_the_embeddings_of_the_run(run: RunFolder) -> None:
    from sentence_transformers import SentenceTransformer

    queries = ["hue: Host", "Wie lade ich die Integration neu?", "ホスト名"]
    passages = ["The hostname or IP address of your Hue bridge.", "Der Hostname oder die IP-Adresse deiner Hue-Bridge."]
    ours = BiEncoder.load(run.model, "mean", {"query": "query: ", "passage": "passage: "}, 512)
    theirs = SentenceTransformer(str(run.model), device="cpu")
    np.testing.assert_allclose(theirs.encode_query(queries), ours.encode(queries, "query"), atol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(passages), ours.encode(passages, "passage"), atol=1e-5)


def test_a_run_is_measured_on_a_beir_folder(run: RunFolder, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "qrels").mkdir(parents=True)
    passages = {"p1": "Der Akku ist leer.", "p2": "Das Licht in der Küche ist an."}
    rows = [json.dumps({"_id": i, "text": text, "lang": "de", "subset": "de"}) for i, text in passages.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    query = {"_id": "q1", "text": "Brennt in der Küche Licht?", "lang": "de", "subset": "de"}
    (folder / "queries.jsonl").write_text(json.dumps(query))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp2\t1\n")
    config = {
        "runs": [str(run.path)],
        "folders": [str(folder)],
        "max_queries": None,
        "precision": "float32",
        "token_budget": 2048,
        "paths": {"cache": str(tmp_path / "cache")},
    }
    [table] = list(evaluate_on_folders(config))
    metrics = pd.read_csv(table).set_index(["model", "metric"])["value"]
    assert metrics["base", "ndcg_at_10"] == metrics["retrofitted", "ndcg_at_10"] == 1.0
    assert table.name == "evaluation_notes.csv"
    for model in ("base", "retrofitted"):
        queries = pd.read_parquet(table.with_name(f"evaluation_notes_{model}.parquet"))
        means = pd.read_csv(table).query("metric == 'ndcg_at_10'").set_index("model")["value"]
        assert queries["ndcg_at_10"].mean() == pytest.approx(means[model], abs=1e-6)
