"""The tables of a sweep, against what its runs were written with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.analysis.swept_runs import QUERIES, write_swept_run

from retrofit.analysis.finding_results import DOMAINS
from retrofit.analysis.sweep_results import collect_sweeps, domain_of
from retrofit.analysis.sweep_status import PLAN
from retrofit.errors import UserError

GAINS = {"in_batch": 0.1, "dense": 0.15}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for negatives, gain in GAINS.items():
        for seed in range(3):
            write_swept_run(tmp_path / "runs", {"negatives": negatives}, seed, gain)
    write_swept_run(tmp_path / "runs", {"negatives": "random"}, 0, 0.5, state="failed")
    return tmp_path / "runs"


def test_results_have_a_row_for_each_run_and_group(sweep: Path, tmp_path: Path) -> None:
    collect_sweeps([sweep], tmp_path / "F3")
    results = pd.read_csv(tmp_path / "F3" / "results.csv")
    assert set(results["sweep"]) == {"made_up"}
    assert len(results) == 6 * 3
    domains = results.drop_duplicates("group").set_index("group")["domain"].to_dict()
    assert domains == {
        "held_out, seen": "training", "held_out, unseen": "unseen_languages", "retention_leads": "retention",
    }  # fmt: skip
    for negatives, gain in GAINS.items():
        its = results[results["point"] == f"negatives={negatives}"]
        assert its["gain"].to_numpy() == pytest.approx(gain, abs=0.02)
        assert (its["value"] - its["base"]).to_numpy() == pytest.approx(its["gain"].to_numpy(), abs=1e-4)
    assert results.set_index("group").loc["held_out, seen", "queries"].unique() == [2 * QUERIES]


def test_comparisons_are_with_the_base_and_with_the_reference(sweep: Path, tmp_path: Path) -> None:
    collect_sweeps([sweep], tmp_path / "F3")
    compared = pd.read_csv(tmp_path / "F3" / "comparison.csv").set_index(["point", "against", "group"])
    assert {key[:2] for key in compared.index} == {
        ("negatives=in_batch", "base"), ("negatives=dense", "base"), ("negatives=dense", "negatives=in_batch"),
    }  # fmt: skip
    row = compared.loc["negatives=dense", "negatives=in_batch", "held_out, seen"]
    assert row["difference"] == pytest.approx(0.05, abs=1e-3)
    assert row["seeds_up"] == row["seeds"] == 3
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["p_holm"] < 0.05


def test_an_axis_of_a_grid_is_compared_at_every_value_of_the_other(tmp_path: Path) -> None:
    gains = {("in_batch", 64): 0.1, ("dense", 64): 0.12, ("in_batch", 16): 0.05, ("dense", 16): 0.09}
    for (negatives, size), gain in gains.items():
        for seed in range(3):
            write_swept_run(tmp_path / "runs", {"negatives": negatives, "batch_size": size}, seed, gain)
    collect_sweeps([tmp_path / "runs"], tmp_path / "F3", "batch_size=64, negatives=in_batch")
    rows = pd.read_csv(tmp_path / "F3" / "comparison.csv").query("group == 'held_out, seen'")
    compared = rows[rows["against"] != "base"].set_index(["point", "against"])
    assert set(compared.index) == {
        ("batch_size=64, negatives=dense", "batch_size=64, negatives=in_batch"),
        ("batch_size=16, negatives=in_batch", "batch_size=64, negatives=in_batch"),
        ("batch_size=16, negatives=dense", "batch_size=64, negatives=in_batch"),
        ("batch_size=16, negatives=dense", "batch_size=16, negatives=in_batch"),
        ("batch_size=16, negatives=dense", "batch_size=64, negatives=dense"),
    }
    row = compared.loc["batch_size=16, negatives=dense", "batch_size=16, negatives=in_batch"]
    assert row["difference"] == pytest.approx(0.04, abs=1e-3)
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["p_holm"] < 0.05


def test_points_languages_and_curves_are_those_of_the_runs(sweep: Path, tmp_path: Path) -> None:
    collect_sweeps([sweep], tmp_path / "F3")
    points = pd.read_csv(tmp_path / "F3" / "points.csv")
    assert points["negatives"].tolist().count("dense") == 3
    assert set(points["run"]) == {path.name for path in sweep.iterdir()} - {"random-0"}
    columns = ["pairs", "trained_languages", "steps", "negatives_per_query"]
    assert points[columns].iloc[0].tolist() == [100, 1, 3, 20.0]
    assert points[["training_seconds", "pairs_per_second", "peak_memory_gb"]].iloc[0].tolist() == [20.0, 5.0, 2.5]
    languages = pd.read_csv(tmp_path / "F3" / "languages.csv")
    german = languages[(languages["language"] == "de") & (languages["point"] == "negatives=dense")]
    assert german["gain"].iloc[0] == pytest.approx(0.15, abs=0.01)
    assert german["queries"].iloc[0] == 2 * QUERIES
    curves = pd.read_csv(tmp_path / "F3" / "curves.csv")
    assert curves.groupby(["point", "seed"]).size().tolist() == [3] * 6
    environment = json.loads((tmp_path / "F3" / "environment.json").read_text(encoding="utf-8"))
    assert environment["commands"] == ["retrofit train sweep=paper/made_up"]
    assert environment["machine"]["torch_threads"] == 2
    assert environment["commits_of_runs"] == ["c0ffee"]


def test_several_sweeps_of_a_finding_share_the_tables(sweep: Path, tmp_path: Path) -> None:
    write_swept_run(tmp_path / "more", {"negatives": "in_batch"}, 0, 0.1, name="batch")
    write_swept_run(tmp_path / "more", {"negatives": "in_batch", "batch_size": 64}, 0, 0.1, name="batch")
    collect_sweeps([sweep, tmp_path / "more"], tmp_path / "F3")
    points = pd.read_csv(tmp_path / "F3" / "points.csv")
    assert points["batch_size"].notna().sum() == 1
    assert len(points) == 8


def test_sweeps_of_one_name_are_not_mixed(sweep: Path, tmp_path: Path) -> None:
    write_swept_run(tmp_path / "more", {"negatives": "in_batch"}, 0, 0.1, name="made_up")
    with pytest.raises(UserError, match="are both made_up"):
        collect_sweeps([sweep, tmp_path / "more"], tmp_path / "F3")
    with pytest.raises(UserError, match="are both made_up"):
        collect_sweeps([sweep, sweep], tmp_path / "F3")
    assert not (tmp_path / "F3").exists()


def test_a_point_that_lacks_a_seed_is_told(sweep: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(sweep / "dense-1")
    collect_sweeps([sweep], tmp_path / "F3")
    assert "negatives=dense is left out: it has no finished run with seed 1" in caplog.messages


def test_what_a_point_that_is_left_out_was_trained_on_changes_no_group(sweep: Path, tmp_path: Path) -> None:
    unfinished = write_swept_run(sweep, {"negatives": "bm25"}, 0, 0.2) / "metrics.csv"
    pd.read_csv(unfinished).assign(seen_in_training=True).to_csv(unfinished, index=False)
    collect_sweeps([sweep], tmp_path / "F3")
    for table in ("results", "languages"):
        rows = pd.read_csv(tmp_path / "F3" / f"{table}.csv")
        assert set(rows["point"]) == {"negatives=in_batch", "negatives=dense"}
        assert set(rows["group"]) == {"held_out, seen", "held_out, unseen", "retention_leads"}
    assert set(rows.loc[rows["group"] == "held_out, unseen", "language"]) == {"ga"}


def test_a_suite_that_the_reference_was_not_measured_on_is_one_line(sweep: Path, tmp_path: Path) -> None:
    for model in ("base", "retrofitted"):
        path = sweep / "dense-0" / f"queries_{model}.parquet"
        scores = pd.read_parquet(path)
        pd.concat([scores, scores.head(3).assign(suite="xquad")]).to_parquet(path)
    metrics = pd.read_csv(sweep / "dense-0" / "metrics.csv")
    more = metrics.head(1).assign(suite="xquad", model="base")
    pd.concat([metrics, more]).to_csv(sweep / "dense-0" / "metrics.csv", index=False)
    with pytest.raises(UserError, match=r"in_batch-0: lacks xquad; measure all runs on the same queries"):
        collect_sweeps([sweep], tmp_path / "F3")


def test_what_cannot_be_compared_is_one_line(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run of a sweep"):
        collect_sweeps([tmp_path / "nowhere"], tmp_path / "F3")
    shutil.copytree(sweep / "dense-0", sweep / "twice")
    with pytest.raises(UserError, match=r"dense-0 and .*twice are both negatives=dense with seed 0"):
        collect_sweeps([sweep], tmp_path / "F3")
    shutil.rmtree(sweep / "twice")
    for seed in range(3):
        shutil.rmtree(sweep / f"in_batch-{seed}")
    with pytest.raises(UserError, match="no finished run of negatives=in_batch"):
        collect_sweeps([sweep], tmp_path / "F3")
    assert not (tmp_path / "F3").exists()
    collect_sweeps([sweep], tmp_path / "F3", "negatives=dense")
    assert set(pd.read_csv(tmp_path / "F3" / "comparison.csv")["against"]) == {"base"}  # nothing else is left


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", ""),
        ("config.yaml", "seed: [0"),
        ("metrics.csv", None),
        ("metrics.csv", ""),
        ("metrics.json", None),
        ("metrics.json", "{}"),
        ("metrics.json", '{"seconds": {"training": 1, "total": 1}, "machine": null}'),
        ("training_curve.csv", "step,loss,negatives_per_query,pairs_per_second,peak_memory_gb\n,2,1,1,1\n"),
        ("data_manifest.json", '{"pairs": 1'),
        ("training_curve.csv", "step,loss\n1,2\n"),
        ("queries_base.parquet", None),
        ("queries_retrofitted.parquet", "PAR1"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(sweep: Path, tmp_path: Path, name: str, content: str | None) -> None:
    file = sweep / "dense-1" / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        collect_sweeps([sweep], tmp_path / "F3")
    assert str(caught.value).startswith(f"{file} ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "F3").exists()


def test_a_run_measured_before_queries_had_groups_is_named_in_one_line(sweep: Path, tmp_path: Path) -> None:
    file = sweep / "dense-1" / "queries_base.parquet"
    pd.read_parquet(file).drop(columns="query_group").to_parquet(file)
    with pytest.raises(UserError, match=rf"^{file} cannot be read: .*query_group.*train again$"):
        collect_sweeps([sweep], tmp_path / "F3")


def test_a_run_that_is_not_finished_need_not_be_whole(sweep: Path, tmp_path: Path) -> None:
    (sweep / "random-0" / "config.yaml").write_text("", encoding="utf-8")
    collect_sweeps([sweep], tmp_path / "F3")


def test_domains() -> None:
    groups = ("held_out, seen", "held_out, unseen", "retention_leads", "xquad")
    assert [domain_of(group) for group in groups] == list(DOMAINS)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("retrofit train sweep=negatives negatives=teacher", None),
        ("retrofit train -m sweep=paper/final trainer.max_gradient_norm=1", None),
        ("retrofit train negatives.mined.model.checkpoint.name=runs/data_scale/0a1b/model", None),
        ("retrofit train model.checkpoint.name=intfloat/multilingual-e5-base", None),
        ("retrofit train data_source.path=../data/jaquad", "retrofit train data_source.path=jaquad"),
        (
            "retrofit train 'folders=[{path: ../eval/xquad, languages: [ar, en]}]'",
            "retrofit train 'folders=[{path: xquad, languages: [ar, en]}]'",
        ),
        ("retrofit train 'folders=[/home/me/xquad,~/eval/omosqa]'", "retrofit train 'folders=[xquad,omosqa]'"),
        ("retrofit train 'folders=[{path:../eval/xquad}]'", "retrofit train 'folders=[{path:xquad}]'"),
        (
            "retrofit train data_source.path=file:///data/mine/pairs.jsonl",
            "retrofit train data_source.path=pairs.jsonl",
        ),
        ("retrofit train 'paths.runs=/data/my name/runs'", "retrofit train paths.runs=runs"),
        ("retrofit train data_source.path=C:/Users/me/pairs", "retrofit train data_source.path=pairs"),
        ("retrofit train data_source.path=hf://datasets/owner/name", None),
    ],
)
def test_the_commands_are_those_that_were_given_without_the_paths_of_a_machine(
    sweep: Path, tmp_path: Path, command: str, shown: str | None
) -> None:
    (sweep / PLAN).write_text(json.dumps({"commands": ["retrofit train sweep=made_up", command], "jobs": []}))
    collect_sweeps([sweep], tmp_path / "F3")
    environment = json.loads((tmp_path / "F3" / "environment.json").read_text(encoding="utf-8"))
    assert environment["commands"] == ["retrofit train sweep=made_up", shown or command]
