"""Comparisons of runs: against naive arithmetic, and against what is known of the statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from retrofit.analysis.comparison import compare_runs, finished_runs
from retrofit.errors import UserError

METRIC = "ndcg_at_10"


def queries(per_cell: int = 40, suites: tuple[str, ...] = ("held_out", "retention_leads")) -> pd.DataFrame:
    rows = [
        (suite, task, language, language, number)
        for suite in suites
        for task, languages in {"help": ("de", "en"), "title": ("de",)}.items()
        for language in languages
        for number in range(per_cell if language == "de" else per_cell // 2)
    ]
    frame = pd.DataFrame(rows, columns=["suite", "task", "query_language", "document_language", "query_id"])
    return frame.assign(query_group=[str(place) for place in range(len(frame))])


def write_run(folder: Path, option: str, seed: int, gain: float, noise: float = 0.05) -> Path:
    """A finished run whose scores are the base's plus a gain and some noise."""
    path = folder / f"{option}-{seed}"
    path.mkdir(parents=True)
    (path / "status.json").write_text('{"state": "finished"}', encoding="utf-8")
    (path / "config.yaml").write_text(yaml.safe_dump({"option": option, "seed": seed}), encoding="utf-8")
    frame = queries()
    base = np.random.default_rng(0).uniform(0.2, 0.8, len(frame))
    scores = {"base": base, "retrofitted": base + gain + np.random.default_rng(seed).normal(0, noise, len(frame))}
    metrics = []
    for model, values in scores.items():
        scored = frame.assign(**{METRIC: values})
        scored.to_parquet(path / f"queries_{model}.parquet")
        cells = scored.groupby(["suite", "task", "query_language", "document_language"])[METRIC].agg(["mean", "size"])
        cells = cells.rename(columns={"mean": "value", "size": "n_queries"}).reset_index()
        cells["seen_in_training"] = cells["query_language"] == "de"
        metrics.append(cells.assign(metric=METRIC, model=model))
    pd.concat(metrics).to_csv(path / "metrics.csv", index=False)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> dict[tuple[str, int], Path]:
    for seed in range(3):
        for option, gain in {"real": 0.0, "same": 0.0, "better": 0.05}.items():
            write_run(tmp_path, option, seed, gain)
    write_run(tmp_path, "incomplete", 0, 0.5)
    return finished_runs(tmp_path, lambda config: str(config["option"]))


def test_a_difference_is_found_and_none_is_not_invented(runs: dict[tuple[str, int], Path]) -> None:
    found = compare_runs(runs, "real", "source").differences.set_index(["group", "source"])
    assert set(found.index) == {
        (group, name)
        for group in ("held_out, seen", "held_out, unseen", "retention_leads")
        for name in ("better", "same")
    }
    for group in ("held_out, seen", "held_out, unseen", "retention_leads"):
        better = found.loc[(group, "better")]
        assert better["difference"] == pytest.approx(0.05, abs=0.01)
        assert better["low"] <= better["difference"] <= better["high"]
        assert better["low"] > 0
        assert better["p_holm"] < 0.01
        assert better["seeds_up"] == 3
        same = found.loc[(group, "same")]
        assert same["difference"] == 0 == same["low"] == same["high"]
        assert same["p_holm"] == 1


def test_runs_are_listed_with_their_gain(runs: dict[tuple[str, int], Path]) -> None:
    table = compare_runs(runs, "real", "source").runs
    assert len(table) == 3 * 3 * 3
    assert (table["gain"] - (table[METRIC] - table["base"])).abs().max() < 1e-12
    naive = pd.read_parquet(runs["better", 1] / "queries_retrofitted.parquet").query("suite == 'retention_leads'")
    cells = naive.groupby(["task", "query_language"])[METRIC].mean()
    row = table.query("group == 'retention_leads' and source == 'better' and seed == 1")
    assert row[METRIC].item() == pytest.approx(cells.groupby("task").mean().mean())


def test_tasks_of_retention_are_told_apart_where_that_is_asked(runs: dict[tuple[str, int], Path]) -> None:
    table = compare_runs(runs, "real", "source", retention_by_task=True).runs
    assert set(table["group"]) == {
        "held_out, seen", "held_out, unseen", "retention_leads: help", "retention_leads: title",
    }  # fmt: skip
    naive = pd.read_parquet(runs["better", 1] / "queries_retrofitted.parquet").query("suite == 'retention_leads'")
    title = table.query("group == 'retention_leads: title' and source == 'better' and seed == 1")
    assert title[METRIC].item() == pytest.approx(naive.loc[naive["task"] == "title", METRIC].mean())


def test_gains_are_against_the_base(runs: dict[tuple[str, int], Path]) -> None:
    found = compare_runs(runs, "real", "source").gains.set_index(["group", "source"])
    assert set(found["against"]) == {"base"}
    assert found.loc[("retention_leads", "better"), "difference"] == pytest.approx(0.05, abs=0.01)
    assert found.loc[("retention_leads", "better"), "p_holm"] < 0.01
    assert found.loc[("retention_leads", "real"), "low"] < 0 < found.loc[("retention_leads", "real"), "high"]


def test_a_run_gains_over_its_own_base(runs: dict[tuple[str, int], Path]) -> None:
    for seed in range(3):
        path = runs["same", seed] / "queries_base.parquet"
        higher = pd.read_parquet(path)
        higher.assign(**{METRIC: higher[METRIC] + 0.1}).to_parquet(path)
    compared = compare_runs(runs, "real", "source")
    gains = compared.gains.set_index(["group", "source"])["difference"]
    assert gains["held_out, seen", "same"] == pytest.approx(gains["held_out, seen", "real"] - 0.1)
    bases = compared.runs.set_index(["group", "source", "seed"])["base"]
    assert bases["held_out, seen", "same", 1] == pytest.approx(bases["held_out, seen", "real", 1] + 0.1)
    assert compared.differences.set_index(["group", "source"]).loc[("held_out, seen", "same"), "difference"] == 0


def test_what_is_missing_is_said(runs: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no finished run of nothing, .* \(reference\); there are better, .*real"):
        compare_runs(runs, "nothing", "source")
    fewer = pd.read_parquet(runs["same", 1] / "queries_retrofitted.parquet").iloc[3:]
    fewer.to_parquet(runs["same", 1] / "queries_retrofitted.parquet")
    with pytest.raises(UserError, match="same-1: lacks 3 queries of held_out, seen that real was measured on"):
        compare_runs(runs, "real", "source")
    with pytest.raises(UserError, match="no finished run"):
        finished_runs(runs["real", 0], lambda config: "")
    (runs["real", 0] / "status.json").write_text('{"state": "failed"}', encoding="utf-8")
    assert ("real", 0) not in finished_runs(tmp_path, lambda config: str(config["option"]))
    with pytest.raises(UserError, match="are both one with seed 0"):
        finished_runs(tmp_path, lambda config: "one")


def test_a_run_that_was_measured_on_more_queries_is_named(runs: dict[tuple[str, int], Path]) -> None:
    for model in ("base", "retrofitted"):
        path = runs["better", 2] / f"queries_{model}.parquet"
        scores = pd.read_parquet(path)
        pd.concat([scores, scores.head(2).assign(query_id=[1_000, 1_001])]).to_parquet(path)
    expected = r"better-2: has 82 queries of held_out, seen, real has 80; measure all runs on the same queries"
    with pytest.raises(UserError, match=expected):
        compare_runs(runs, "real", "source")


def test_another_score_of_the_base_is_told(runs: dict[tuple[str, int], Path], caplog: pytest.LogCaptureFixture) -> None:
    compare_runs(runs, "real", "source")
    assert caplog.messages == ["incomplete is left out: it has no finished run with seed 1, 2"]
    path = runs["same", 1] / "queries_base.parquet"
    scores = pd.read_parquet(path)
    scores[METRIC] += 0.01 * (scores["suite"] == "retention_leads")
    scores.to_parquet(path)
    caplog.clear()
    compare_runs(runs, "real", "source")
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith("retention_leads: the base has ")


def test_queries_that_ask_for_the_same_are_not_counted_twice(runs: dict[tuple[str, int], Path]) -> None:
    apart = compare_runs(runs, "real", "source").gains.set_index(["group", "source"])
    for path in runs.values():
        for model in ("base", "retrofitted"):
            scores = pd.read_parquet(path / f"queries_{model}.parquet")
            # Forty queries, as if they were translations of five.
            scores = scores.assign(query_group=(scores["query_id"] % 5).astype(str))
            scores[METRIC] = scores.groupby("query_group")[METRIC].transform("mean")
            scores.to_parquet(path / f"queries_{model}.parquet")
    grouped = compare_runs(runs, "real", "source").gains.set_index(["group", "source"])
    row = ("held_out, seen", "better")
    assert grouped.loc[row, "p"] > apart.loc[row, "p"]


def test_seeds_that_the_reference_lacks_are_told(
    runs: dict[tuple[str, int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    del runs["real", 2]
    found = compare_runs(runs, "real", "source")
    assert "runs with seed 2 are left out: real has no finished run with it" in caplog.messages
    assert set(found.differences["seeds"]) == {2}
