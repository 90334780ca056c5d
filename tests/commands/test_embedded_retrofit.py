"""The main job on the real model and real text, short: ``experiment=short``."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from retrofit.models.bi_encoder import BiEncoder
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
