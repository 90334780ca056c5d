"""``retrofit train`` from outside, on a tiny model and a tiny corpus: run, run again, fail."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.commands.workplace import KEY, Workplace, read_json, same, snapshot, weights
from tests.evaluation.beir_folders import beir

from retrofit.data.selection import select
from retrofit.data.storage import PAIRS, REPORT, read_records
from retrofit.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_run: list[str]) -> Workplace:
    """A workplace with one finished run; not to be added to."""
    workplace = Workplace(tmp_path_factory.mktemp("finished"), small_run)
    done = workplace.train_from_nothing()
    assert done.returncode == 0, done.stderr
    (workplace.path / "stdout").write_text(done.stdout, encoding="utf-8")
    (workplace.path / "stderr").write_text(done.stderr, encoding="utf-8")
    return workplace


def test_a_run_leaves_every_file_of_the_run_folder(finished: Workplace) -> None:
    run = finished.run()
    left = {path.name for path in run.iterdir()}
    assert left >= {
        "config.yaml", "status.json", "data_manifest.json", "metrics.csv", "metrics.json", "report.html", "model",
        "adapter", "training_curve.csv", "interpolation.csv", "examples.json", "run.log", "checkpoints",
        "queries_base.parquet", "queries_retrofitted.parquet", "retention.csv",
    }  # fmt: skip
    assert not [name for name in left if "partial" in name]
    # Nothing beside the run folder: no log of Hydra's, no outputs/.
    assert {path.name for path in finished.path.iterdir()} == {"cache", "runs", "stdout", "stderr"}
    status = read_json(run / "status.json")
    assert status["state"] == "finished"
    assert status["reason"] == ""
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["name"] == "tiny"


def test_metrics_csv_has_the_documented_columns_and_every_cell(finished: Workplace, corpus: Path) -> None:
    with (finished.run() / "metrics.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert header == [
        "model", "suite", "task", "query_language", "document_language", "seen_in_training", "metric", "value",
        "n_queries",
    ]  # fmt: skip
    metrics = pd.read_csv(finished.run() / "metrics.csv")
    config = yaml.safe_load((finished.run() / "config.yaml").read_text(encoding="utf-8"))
    assert metrics["value"].between(0, 1).all()
    assert not metrics.duplicated(["model", "suite", "task", "query_language", "document_language", "metric"]).any()
    table = read_records(corpus / PAIRS)
    test = table.take(select(table, "test")).to_pandas()
    cells = {
        (model, suite, row.task, row.language, row.document_language, metric)
        for suite, asked in config["evaluation"]["suites"].items()
        for row in test[test["task"].isin(asked["tasks"])].itertuples()
        for model in ("base", "retrofitted")
        for metric in ("ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100")
    }
    columns = ["model", "suite", "task", "query_language", "document_language", "metric"]
    assert set(metrics[columns].itertuples(index=False, name=None)) == cells
    seen = metrics[metrics["seen_in_training"]]
    assert set(seen["task"]) == set(config["task_mix"]["tasks"])
    assert not metrics.loc[~metrics["task"].isin(config["task_mix"]["tasks"]), "seen_in_training"].any()


def test_metrics_json_is_the_mean_of_metrics_csv(finished: Workplace) -> None:
    figures, metrics = read_json(finished.run() / "metrics.json"), pd.read_csv(finished.run() / "metrics.csv")
    ndcg = metrics[metrics["metric"] == "ndcg_at_10"]
    assert set(figures["headline"]) == set(metrics["suite"])
    for suite, entry in figures["headline"].items():
        means = {}
        for model in ("base", "retrofitted"):
            rows = ndcg[(ndcg["suite"] == suite) & (ndcg["model"] == model)]
            means[model] = rows.groupby("task")["value"].mean().mean()
            assert entry[model] == pytest.approx(means[model], abs=2e-4)
        # Of the means as they are, not as they are rounded: the two can differ in the last digit shown.
        assert entry["gain"] == pytest.approx(means["retrofitted"] - means["base"], abs=5.2e-5)


def test_the_data_manifest_counts_what_was_trained_on(finished: Workplace, corpus: Path) -> None:
    manifest = read_json(finished.run() / "data_manifest.json")
    config = yaml.safe_load((finished.run() / "config.yaml").read_text(encoding="utf-8"))
    rows = select(read_records(corpus / PAIRS), "train", config["task_mix"]["tasks"])
    assert manifest["data_source"] == "made_up"
    assert manifest["fingerprint"] == corpus.name
    assert manifest["pairs"] == sum(row["pairs"] for row in manifest["pairs_by_task_and_language"])
    curation = manifest["curation"]
    assert curation["kept"] + sum(curation["removed"].values()) == curation["candidates"]
    assert len(rows) - sum(curation["removed"].values()) <= manifest["pairs"] <= len(rows)


def test_the_training_curve_and_the_interpolation(finished: Workplace) -> None:
    curve = pd.read_csv(finished.run() / "training_curve.csv")
    columns = ["step", "loss", "learning_rate", "pairs_per_second", "negatives_per_query", "peak_memory_gb", "seconds"]
    assert list(curve.columns) == columns
    figures = read_json(finished.run() / "metrics.json")
    assert figures["seconds"]["training"] == pytest.approx(curve["seconds"].max(), abs=0.06)
    assert curve["step"].tolist() == [8, 16, 24]
    assert np.isfinite(curve["loss"]).all()
    # The rates that the steps were made with: after the warm-up they fall evenly, and the last one is not 0.
    np.testing.assert_allclose(curve["learning_rate"] / curve["learning_rate"].iloc[-1], [17, 9, 1])
    tried = pd.read_csv(finished.run() / "interpolation.csv")
    assert tried["weight"].tolist() == [0.5, 1.0]
    assert tried["chosen"].sum() == 1


def test_the_model_is_the_interpolation_of_base_and_adapter_that_was_chosen(finished: Workplace) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    (base,) = (path.parent for path in (finished.path / "cache" / "checkpoints").rglob("config.json"))
    plain = AutoModel.from_pretrained(base, add_pooling_layer=False)
    before = {name: tensor.clone().numpy() for name, tensor in plain.state_dict().items()}
    merged = PeftModel.from_pretrained(plain, str(finished.run() / "adapter")).merge_and_unload().state_dict()
    tried = pd.read_csv(finished.run() / "interpolation.csv")
    weight = float(tried.loc[tried["chosen"], "weight"].iloc[0])
    exported, moved = weights(finished.run()), 0
    for name, tensor in exported.items():
        expected = before[name] + weight * (merged[name].numpy() - before[name])
        np.testing.assert_allclose(tensor, expected, atol=1e-6, err_msg=name)
        moved += int(np.abs(tensor - before[name]).max() > 1e-3)
    assert moved == 12


def test_the_terminal_shows_the_result_and_the_log_goes_to_the_other_stream(finished: Workplace) -> None:
    output, log = ((finished.path / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert "held_out" in output
    assert "report.html" in output
    assert "step 24 of 24" in log
    assert "step 24 of 24" in (finished.run() / "run.log").read_text(encoding="utf-8")
    for noise in ("Warning", "LOAD REPORT", "Loading weights", "Traceback"):
        assert noise not in log


def test_no_file_of_a_run_holds_the_key_of_weights_and_biases(finished: Workplace) -> None:
    for path in finished.run().rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_second_call_does_nothing_and_shows_the_same(finished: Workplace) -> None:
    before, cached = snapshot(finished.run()), snapshot(finished.path / "cache")
    again = finished.train()
    assert again.returncode == 0, again.stderr
    assert snapshot(finished.run()) == before
    assert snapshot(finished.path / "cache") == cached
    assert "is finished" in again.stderr
    assert again.stdout == (finished.path / "stdout").read_text(encoding="utf-8")


def test_a_bad_value_is_one_line_and_leaves_nothing(tmp_path: Path, small_run: list[str]) -> None:
    done = Workplace(tmp_path, small_run).train("batching.batch_size=1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("retrofit train: batching.batch_size=1: expected ")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_go_on_is_failed_in_one_line_and_says_why(tmp_path: Path, small_run: list[str]) -> None:
    workplace = Workplace(tmp_path, small_run)
    done = workplace.train("languages.languages=[xx]")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("retrofit train: ")]
    assert len(lines) == 1
    assert "languages.languages: xx" in lines[0]
    assert "Traceback" not in done.stderr
    status = read_json(workplace.run() / "status.json")
    assert status["state"] == "failed"
    assert "languages.languages: xx" in status["reason"]


def test_a_run_that_raises_is_failed_and_may_be_repeated(tmp_path: Path, small_run: list[str], corpus: Path) -> None:
    missing = tmp_path / "source" / corpus.name
    missing.mkdir(parents=True)
    overrides = [each.replace(str(corpus), str(missing)) for each in small_run]
    workplace = Workplace(tmp_path, overrides)
    done = workplace.train()
    assert done.returncode not in (0, 2)
    status = read_json(workplace.run() / "status.json")
    assert status["state"] == "failed"
    assert "FileNotFoundError" in status["reason"]
    assert "Traceback" in (workplace.run() / "run.log").read_text(encoding="utf-8")

    for name in (PAIRS, REPORT):
        (missing / name).write_bytes((corpus / name).read_bytes())
    again = workplace.train()
    assert again.returncode == 0, again.stderr
    assert read_json(workplace.run() / "status.json")["state"] == "finished"


def test_dimensions_that_the_model_has_not_are_found_before_anything_is_measured(
    tmp_path: Path, in_process: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match=r"^loss\.dimensions=\[384, 192, 96, 48\]: expected at most 32"):
        in_process(tmp_path, "loss=matryoshka")
    assert not (tmp_path / "cache" / "evaluations").exists()


def test_a_seed_decides_the_weights_in_any_place(tmp_path: Path, in_process: Callable[..., Path]) -> None:
    first, second = (in_process(tmp_path / name) for name in "ab")
    other = in_process(tmp_path / "a", "seed=1")
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


def test_runs_of_one_base_measure_it_once(tmp_path: Path, in_process: Callable[..., Path]) -> None:
    evaluations = tmp_path / "cache" / "evaluations"
    first = in_process(tmp_path)
    before = snapshot(evaluations)
    second = in_process(tmp_path, "seed=1")
    assert first != second
    after = snapshot(evaluations)
    assert before.items() <= after.items()
    suites, weights_tried = 3, 2
    new = {name for name in after.keys() - before.keys() if name.endswith("results.parquet")}
    # Of the second run only: the interpolation weights on validation, the retrofitted model on test.
    assert len(new) == suites * (weights_tried + 1)
    base = [pd.read_csv(run / "metrics.csv").query("model == 'base'")["value"].tolist() for run in (first, second)]
    assert base[0] == base[1]


def test_a_single_weight_is_exported_without_measuring_it_on_validation(
    tmp_path: Path, in_process: Callable[..., Path]
) -> None:
    run = in_process(tmp_path, "export.interpolation=1.0")
    assert not (run / "interpolation.csv").exists()
    results = list((tmp_path / "cache" / "evaluations").rglob("results.parquet"))
    assert len(results) == 3 * 2  # suites of the test split, base and retrofitted


@pytest.mark.parametrize(
    "overrides",
    [
        ["adapter=full"],
        ["adapter=dora", "loss=info_nce_symmetric", "negatives=random"],
        ["anchor=base", "anchor.texts=4", "model.dropout=0.1"],
        ["loss=guided", "model@loss.teacher=tiny", "loss.dimensions=[32,8]", "loss.queue_size=8", "negatives=dense"],
        ["task_mix=all", "batching.alpha={task:0,language:0}", "data_scale.pairs_per_language=10"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_way_to_train_runs(tmp_path: Path, in_process: Callable[..., Path], overrides: list[str]) -> None:
    run = in_process(tmp_path, *overrides)
    assert read_json(run / "status.json")["state"] == "finished"
    curve = pd.read_csv(run / "training_curve.csv")
    assert np.isfinite(curve["loss"]).all()
    assert (run / "adapter").exists() == (overrides[0] != "adapter=full")
    assert all(np.isfinite(tensor).all() for tensor in weights(run).values())


def test_training_measures_the_retrieval_suites_and_the_folders(
    in_process: Callable[..., Path], tmp_path: Path
) -> None:
    passages = [{"_id": f"p{number}", "text": text} for number, text in enumerate(("Akku leer", "Licht an", "Tür zu"))]
    queries = [{"_id": "q1", "text": "Ist das Licht an?", "lang": "de"}, {"_id": "q2", "text": "Akku?", "lang": "de"}]
    faq = beir(tmp_path / "faq", passages, queries, "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq2\tp0\t1\n")
    bitext = "{kind: bitext, source: embedded, tasks: [bitext], languages: null, max_sentences: 5}"
    run = in_process(
        tmp_path, f"+evaluation.suites.bitext={bitext}", f"folders=[{{path: '{faq}', max_queries: 1}}]",
        "batching.steps=4", "export.interpolation=[0.5,1.0]",
    )  # fmt: skip
    metrics = pd.read_csv(run / "metrics.csv")
    assert set(metrics["suite"]) == {"held_out", "retention_leads", "retention_bitext", "faq"}
    ours = metrics[metrics["suite"] == "faq"]
    assert set(ours["model"]) == {"base", "retrofitted"}
    assert ours[["query_language", "n_queries", "seen_in_training"]].drop_duplicates().values.tolist() == [
        ["de", 1, False]
    ]
    leaks = pd.read_csv(run / "leakage.csv")
    assert leaks[["suite", "queries", "queries_in_training"]].values.tolist() == [["faq", 1, 0]]
    # Judged for the test alone: of the validation, base and two weights, they are no part.
    assert len(list((tmp_path / "cache" / "evaluations").rglob("results.parquet"))) == 2 * 4 + 3 * 3


def test_a_run_that_differs_in_folders_alone_is_measured_and_not_trained_again(
    in_process: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passages = [{"_id": f"p{number}", "text": text} for number, text in enumerate(("Akku leer", "Licht an"))]
    faq = beir(tmp_path / "faq", passages, [{"_id": "q", "text": "Akku?"}], "query-id\tcorpus-id\tscore\nq\tp0\t1\n")
    short = ("batching.steps=4", "export=retrofitted")
    caplog.set_level("INFO", "retrofit")
    before = in_process(tmp_path, *short)
    after = in_process(tmp_path, *short, f"folders=['{faq}']", "experiment_name=again")
    assert f"trained as train/{before.name}, which differs in folders at most" in caplog.text
    assert caplog.text.count("pairs in 4 steps") == 1
    curve, metrics = "training_curve.csv", "metrics.csv"
    assert (after / curve).read_bytes() == (before / curve).read_bytes()  # seconds and all
    assert (after / "adapter").is_dir()
    assert same(weights(after), weights(before))
    assert {*pd.read_csv(after / metrics)["suite"]} - {*pd.read_csv(before / metrics)["suite"]} == {"faq"}
    caplog.clear()
    third = in_process(tmp_path, *short, f"folders=['{faq}']", "seed=7")
    assert "trained as" not in caplog.text
    assert not same(weights(third), weights(before))
