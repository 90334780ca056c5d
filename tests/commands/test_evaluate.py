"""``retrofit evaluate``: several models on several suites, from outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.commands.forked import retrofit
from tests.commands.workplace import snapshot

CELL = ["suite", "task", "query_language", "document_language"]


def evaluate(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return retrofit(place, "evaluate", "evaluation.precision=float32", *overrides)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def runs(place: Path, in_process: Callable[..., Path]) -> list[Path]:
    return [in_process(place, f"seed={seed}", "evaluation.precision=float32") for seed in (0, 1)]


@pytest.fixture(scope="module")
def notes(place: Path) -> Path:
    folder = place / "notes"
    (folder / "qrels").mkdir(parents=True)
    passages = {"p1": "Der Akku ist leer.", "p2": "Das Licht in der Küche ist an."}
    rows = [json.dumps({"_id": i, "text": text, "lang": "de", "subset": "de"}) for i, text in passages.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    query = {"_id": "q1", "text": "Ist in der Küche das Licht an?", "lang": "de", "subset": "de"}
    (folder / "queries.jsonl").write_text(json.dumps(query), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp2\t1\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def own_corpus(corpus: Path) -> list[str]:
    key = "evaluation.sources.embedded"
    return ["evaluation=embedded", f"{key}._target_=pathlib.Path", f"~{key}.cache", f"+{key}._args_=['{corpus}']"]


@pytest.fixture(scope="module")
def evaluated(place: Path, runs: list[Path], notes: Path, own_corpus: list[str]) -> list[str]:
    first, second = runs
    models = f"models=[tiny,{{folder: '{first}', name: first}},{{folder: '{second}', name: second}},bm25]"
    overrides = [models, f"folders=['{notes}']", "output=results", *own_corpus]
    done = evaluate(place, *overrides)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("held_out", "notes", "bm25"))
    return overrides


def ndcg(frame: pd.DataFrame, model: str) -> pd.Series:
    rows = frame[(frame["model"] == model) & (frame["metric"] == "ndcg_at_10")]
    return rows.set_index(CELL)["value"].sort_index()


def test_values_are_those_that_training_measured(place: Path, runs: list[Path], evaluated: list[str]) -> None:
    metrics = pd.read_csv(place / "results" / "metrics.csv")
    for run, name in zip(runs, ("first", "second"), strict=True):
        trained = pd.read_csv(run / "metrics.csv")
        for model, known in (("tiny", "base"), (name, "retrofitted")):
            found = ndcg(metrics, model).drop("notes")
            pd.testing.assert_series_equal(found, ndcg(trained, known), atol=2e-6, rtol=0)
    assert metrics[(metrics["model"] == "bm25") & (metrics["suite"] == "notes")].set_index("metric")["value"][
        "ndcg_at_10"
    ] == pytest.approx(1)


def test_the_folder_says_what_was_measured(place: Path, evaluated: list[str]) -> None:
    results = place / "results"
    models = pd.read_csv(results / "models.csv").set_index("model")
    assert list(models.index) == ["tiny", "first", "second", "bm25"]
    assert models.loc[["first", "second"], "configuration"].tolist() == ["first", "first"]
    assert models["seed"].tolist()[1:3] == [0, 1]
    assert models.loc["tiny", "texts_per_second"] > 0
    scores = pd.read_parquet(results / "scores.parquet")
    values = scores[scores["metric"] == "ndcg_at_10"].groupby(["model", *CELL])["value"].mean()
    metrics = pd.read_csv(results / "metrics.csv")
    means = metrics[metrics["metric"] == "ndcg_at_10"].set_index(["model", *CELL])["value"].sort_index()
    pd.testing.assert_series_equal(values, means, atol=2e-6, rtol=0)
    training = pd.read_csv(results / "training.csv")
    assert set(training["model"]) == {"first", "second"}
    leaks = pd.read_csv(results / "leakage.csv")
    assert set(leaks["model"]) == {"first", "second"}
    assert (leaks["queries_in_training"] <= leaks["queries"]).all()
    compared = pd.read_csv(results / "comparison.csv")
    assert set(compared["against"]) == {"tiny"}
    assert compared[compared["model"] == "first"]["seeds"].unique().tolist() == [2]


def test_what_was_measured_is_not_measured_again(place: Path, evaluated: list[str]) -> None:
    before, results = snapshot(place / "cache" / "model_scores"), (place / "results" / "metrics.csv").read_bytes()
    done = evaluate(place, *evaluated)
    assert done.returncode == 0, done.stderr
    assert snapshot(place / "cache" / "model_scores") == before
    assert (place / "results" / "metrics.csv").read_bytes() == results


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["models=[nothing]"], "models: nothing: no such folder, and no option of conf/model"),
        (["models=[tiny,tiny]"], "models: tiny stands there twice"),
        (["evaluation=folder"], "folders=[]: expected at least one"),
        (["evaluation=mteb", "evaluation.benchmark.name=none"], "evaluation.benchmark.name=none: no benchmark of mteb"),
        (["evaluation=mteb", "evaluation.benchmark.task_types=STS"], "evaluation.benchmark.task_types=STS: expected a"),
        (["evaluation=own"], "evaluation.sources.own: Interpolation key 'data_source.pairs' not found"),
        (["folders=[nowhere]"], "folders[0]=nowhere: no such folder"),
        (["output=."], "output=.: holds something else than an evaluation"),
        (["reference=best"], "reference=best: expected one of the models (tiny), or null"),
        (["evaluation.token_budget=0"], "evaluation.token_budget=0: expected a whole number of 8 or more"),
        (["leakage.near=2"], "leakage.near=2: input should be"),
        (["evaluation.suites=null"], "evaluation.suites=None: expected a mapping"),
        (["evaluation.sources=none"], "evaluation.sources=none: expected a mapping"),
        (["evaluation.retention.groups=null"], "evaluation.retention.groups=None: expected a mapping"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path, overrides: list[str], expected: str) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    done = evaluate(tmp_path, "models=[tiny]", *overrides)
    assert done.returncode == 2
    assert done.stderr.startswith(f"retrofit evaluate: {expected}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_benchmark_of_the_paper_is_measured_up_to_the_first_download(tmp_path: Path) -> None:
    done = evaluate(tmp_path, "models=[tiny]", "evaluation=mteb")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("retrofit evaluate: evaluation.benchmark.name: ")
    assert "cannot be downloaded" in last
    assert "HF_HOME" in last
    assert not (tmp_path / "runs").exists()
