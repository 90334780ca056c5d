"""Verdicts follow from the figures: each finding where it holds, where it does not, and where it was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
from tests.analysis.finding_folders import FINDINGS as IDS
from tests.analysis.finding_folders import Gain, write_experiments, write_results
from tests.analysis.page_words import Words

from retrofit.analysis.finding_figures import finding_figure
from retrofit.analysis.finding_results import BASE, HELD_OUT, SweepResults, numbered
from retrofit.analysis.findings import FINDINGS, Check, Verdict
from retrofit.analysis.overview import write_findings
from retrofit.analysis.verdicts import data_scale_fits, read_as, told, verdict
from retrofit.errors import UserError

Judge = Callable[..., Verdict]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Return a function that judges a finding whose gains follow rules of its own."""

    def judged(finding: str, change: Callable[[Path], None] | None = None, **gains: Gain) -> Verdict:
        folder = write_experiments(tmp_path / "experiments", finding, gains=gains) / FINDINGS[finding].folder
        if change:
            change(folder)
        return verdict(finding, SweepResults.read(folder))

    return judged


def by_value(values: Mapping[str, float], rest: float = 0.05) -> Gain:
    return lambda point, _: values.get(next(iter(point.values())), rest)


def failing(said: Verdict) -> list[str]:
    return [check.says for check in said.checks if check.holds is False]


@pytest.mark.parametrize("finding", IDS)
def test_what_the_paper_found_is_reproduced_where_it_is_so(judge: Judge, finding: str) -> None:
    said = judge(finding)
    assert failing(said) == []
    assert said.verdict == ("partly" if finding == "F5" else "reproduced")  # no 7B model is measured here
    assert "p < .001" in said.sentence


@pytest.mark.parametrize("finding", IDS)
def test_without_results_nothing_is_said(finding: str) -> None:
    said = verdict(finding, None)
    assert said.verdict == "not measured"
    assert FINDINGS[finding].folder in said.sentence


@pytest.mark.parametrize("finding", IDS)
def test_one_seed_is_no_measurement(judge: Judge, finding: str) -> None:
    def keep_one(folder: Path) -> None:
        for name in ("results", "points", "curves"):
            table = pd.read_csv(folder / f"{name}.csv")
            table[table["seed"] == 0].to_csv(folder / f"{name}.csv", index=False)
        table = pd.read_csv(folder / "comparison.csv").assign(seeds=1, seeds_up=1)
        table.to_csv(folder / "comparison.csv", index=False)

    assert judge(finding, keep_one).verdict == "not measured"


@pytest.mark.parametrize("finding", ["F1", "F3", "F5"])
def test_a_mean_without_significance_is_not_enough(judge: Judge, finding: str) -> None:
    def blur(folder: Path) -> None:
        table = pd.read_csv(folder / "comparison.csv")
        table.assign(p=0.04, p_holm=0.2).to_csv(folder / "comparison.csv", index=False)

    assert judge(finding, blur).verdict == "not reproduced"


@pytest.mark.parametrize("finding", ["F1", "F3", "F5"])
def test_a_seed_that_disagrees_is_enough_to_doubt(judge: Judge, finding: str) -> None:
    def disagree(folder: Path) -> None:
        pd.read_csv(folder / "comparison.csv").assign(seeds_up=2).to_csv(folder / "comparison.csv", index=False)

    assert judge(finding, disagree).verdict == "not reproduced"


def test_parallel_texts_that_lift_as_much_make_f1_partly_so(judge: Judge) -> None:
    said = judge("F1", data_source=by_value({"synthetic": 0.06, "bitext": 0.059}))
    assert said.verdict == "partly"
    assert len(failing(said)) == 4
    assert all("parallel texts" in says for says in failing(said))


def test_synthetic_pairs_that_lift_nothing_refute_f1(judge: Judge) -> None:
    assert judge("F1", data_source=by_value({"synthetic": 0.001, "bitext": 0.0})).verdict == "not reproduced"


def test_synthetic_pairs_that_were_not_measured_leave_f1_open(judge: Judge) -> None:
    assert judge("F1", lambda folder: without(folder, "task_mix=synthetic")).verdict == "not measured"


def test_a_gain_that_goes_on_rising_makes_f2_partly_so(judge: Judge) -> None:
    said = judge("F2", data_scale=lambda point, _: 0.01 * math.log2(float(point["pairs_per_language"])))
    assert said.verdict == "partly"
    assert any("levels off within what was measured" in says for says in failing(said))


def test_a_cap_above_what_there_is_counts_as_what_there_is(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F2") / "F2_data_scale"
    points = pd.read_csv(folder / "points.csv")
    points.loc[points["pairs_per_language"] == 4000, "pairs"] = 4 * 3200
    points.to_csv(folder / "points.csv", index=False)
    results = SweepResults.read(folder)
    fits = data_scale_fits(results, "data_scale")
    assert list(fits) == list(HELD_OUT)
    assert {fit.measured for fit in fits.values()} == {(125, 3200)}
    assert "From 125 to 3,200 pairs of each language" in verdict("F2", results).sentence
    figure = finding_figure("F2", results)
    assert figure is not None
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()][-1] == "3,200"


def test_a_level_gain_refutes_f2(judge: Judge) -> None:
    assert judge("F2", data_scale=lambda *_: 0.05).verdict == "not reproduced"


def test_negatives_that_do_nothing_refute_f3(judge: Judge) -> None:
    assert judge("F3", negatives=by_value({})).verdict == "not reproduced"


def test_one_kind_that_does_not_help_makes_f3_partly_so(judge: Judge) -> None:
    said = judge("F3", negatives=by_value({"in_batch": 0.05, "random": 0.05, "bm25": 0.05, "teacher": 0.08}, 0.07))
    assert said.verdict == "partly"
    assert any("dense, dense filtered, refreshed, teacher do" in says for says in failing(said))


def test_a_teacher_that_was_not_tried_keeps_f3_from_being_whole(judge: Judge) -> None:
    said = judge("F3", lambda folder: without(folder, "negatives=teacher"))
    assert said.verdict == "partly"
    assert failing(said) == []


def test_languages_that_add_more_refute_f4(judge: Judge) -> None:
    said = judge("F4", diversity=lambda point, _: 0.02 * math.log(float(point["n_languages"])))
    assert said.verdict == "not reproduced"


def test_a_grid_with_a_hole_leaves_f4_open(judge: Judge) -> None:
    assert judge("F4", lambda folder: without(folder, "n_tasks=5, n_languages=20")).verdict == "not measured"


def test_what_longer_training_adds_is_told_beside_f4_and_decides_nothing(judge: Judge) -> None:
    worse = judge("F4", diversity_longer=lambda point, _: 0.1 - 0.01 * float(point["n_tasks"]))
    assert "In 157 steps n tasks=5, n languages=20 against n tasks=1, n languages=1 is at −0.0400" in worse.sentence
    assert "In 157 steps from 1 to 5 tasks add −0.03" in worse.sentence
    assert worse.verdict == "reproduced"


def test_the_ends_of_longer_training_alone_do_not_tell_tasks_from_languages(judge: Judge) -> None:
    said = judge("F4", lambda folder: without(folder, "n_tasks=1, n_languages=20", sweep="diversity_longer"))
    assert "In 157 steps n tasks=5, n languages=20 against" in said.sentence
    assert "In 157 steps from" not in said.sentence


def test_longer_training_is_told_only_where_both_ends_were_measured(judge: Judge) -> None:
    said = judge("F4", lambda folder: without(folder, "n_tasks=1, n_languages=1", sweep="diversity_longer"))
    assert "steps" not in said.sentence
    assert said.verdict == "reproduced"


def test_longer_training_alone_leaves_f4_open(judge: Judge) -> None:
    assert judge("F4", lambda folder: without(folder, sweep="diversity")).verdict == "not measured"


def test_a_suite_that_falls_is_named_by_f5(judge: Judge) -> None:
    said = judge("F5", final=lambda _, domain: -0.02 if domain == "elsewhere" else 0.05)
    assert said.verdict == "partly"
    assert failing(said) == ["nothing falls significantly of 3 groups of retention and elsewhere: xquad fell"]
    assert "(xquad)" in said.sentence


def test_full_fine_tuning_that_is_better_is_told_by_f5(judge: Judge) -> None:
    said = judge("F5", final=by_value({"lora": 0.05, "full": 0.08}))
    assert any(says.startswith("LoRA is worse than full fine-tuning by less than 0.01") for says in failing(said))


def test_what_no_test_tells_is_no_evidence_that_there_is_nothing(judge: Judge) -> None:
    def widen(folder: Path) -> None:
        table = pd.read_csv(folder / "comparison.csv")
        blurred = table["point"].isin(["adapter=full", "task_mix=bitext"])
        table.loc[blurred, ["low", "high", "p_holm"]] = [-0.06, 0.06, 0.9]
        table.to_csv(folder / "comparison.csv", index=False)

    lora = [check for check in judge("F5", widen).checks if check.says.startswith("LoRA is worse")]
    assert [check.holds for check in lora] == [None]
    assert sum(says.startswith("parallel texts surely gain less") for says in failing(judge("F1", widen))) == 2


def test_every_kind_of_mined_negatives_counts_for_f3(tmp_path: Path) -> None:
    points = [{"negatives": kind} for kind in ("in_batch", "random", "bm25", "hybrid", "cross_lingual")]
    gains = by_value({"hybrid": 0.08, "cross_lingual": 0.07}, 0.05)
    folder = write_results(tmp_path / "F3", [("negatives", points, points[0], gains)])
    assert "2 of 3 kinds of mined negatives improve" in verdict("F3", SweepResults.read(folder)).sentence


def test_a_teacher_is_compared_with_negatives_that_are_filtered_as_its_own_are(judge: Judge) -> None:
    said = judge("F3", negatives=by_value({"dense": 0.05, "dense_filtered": 0.08, "teacher": 0.08}, 0.05))
    assert sum(says.startswith("a teacher mines better negatives") for says in failing(said)) == 2


def test_parallel_texts_of_the_paper_s_size_are_known_to_f1(tmp_path: Path) -> None:
    points = [{"task_mix": source} for source in ("interface", "synthetic", "opus_100")]
    gains = by_value({"interface": 0.08, "synthetic": 0.06, "opus_100": 0.006})
    folder = write_results(tmp_path / "F1", [("data_source", points, points[0], gains)])
    assert verdict("F1", SweepResults.read(folder)).verdict == "reproduced"


def test_f3_has_no_figure_before_two_points_can_be_compared(tmp_path: Path) -> None:
    point = {"negatives": "in_batch", "batch_size": "64"}
    folder = write_results(tmp_path / "F3", [("batch_size", [point], point, lambda *_: 0.05)])
    assert finding_figure("F3", SweepResults.read(folder)) is None


def test_verdicts_of_checks() -> None:
    def of(*held: bool | None) -> str:
        return Verdict.from_checks([Check("", h, decisive=n == 0) for n, h in enumerate(held)], "").verdict

    assert [of(True, True), of(True, False), of(True, None), of(False, True), of(None, True), of(None)] == [
        "reproduced", "partly", "partly", "not reproduced", "not measured", "not measured"]  # fmt: skip


def test_contrasts_turn_and_meet_through_a_third_point(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    results = SweepResults.read(folder)
    sweep, group = "data_source", "held_out, seen"
    there = results.contrast(sweep, "task_mix=bitext", "task_mix=interface", group)
    back = results.contrast(sweep, "task_mix=interface", "task_mix=bitext", group)
    assert there is not None
    assert back is not None
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert (there.worse, back.better) == (True, True)
    indirect = results.contrast(sweep, "task_mix=synthetic", "task_mix=bitext", group)
    assert indirect is not None
    assert indirect.difference == pytest.approx(0.054)
    assert indirect.high - indirect.low == pytest.approx(2 * (there.high - there.low))
    assert math.isnan(indirect.p)
    assert indirect.seeds_up == 3
    assert told(indirect) == "+0.0540 (+0.0480 to +0.0600; up in 3 of 3 seeds; from two intervals)"
    assert results.contrast(sweep, "task_mix=synthetic", "task_mix=nothing", group) is None

    rows = results.comparison
    of_group = (rows["group"] == group) & (rows["against"] != BASE)
    rows.loc[of_group & (rows["point"] == "task_mix=synthetic"), ["difference", "low", "high"]] = -0.006, -0.007, -0.005
    rows.loc[of_group & (rows["point"] == "task_mix=bitext"), ["difference", "low", "high"]] = -0.060, -0.061, -0.059
    closer = results.contrast(sweep, "task_mix=synthetic", "task_mix=bitext", group)
    assert closer is not None
    assert (closer.difference, closer.low, closer.high) == pytest.approx((0.054, 0.052, 0.056))


def test_a_seed_that_is_level_is_neither_up_nor_down(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    results = SweepResults.read(folder)
    sweep, group = "data_source", "held_out, seen"
    rows = results.results
    of_group = (rows["group"] == group) & (rows["seed"] == 1)
    level = rows.loc[of_group & (rows["point"] == "task_mix=interface"), "value"].item()
    rows.loc[of_group & (rows["point"] == "task_mix=bitext"), "value"] = level
    there = results.contrast(sweep, "task_mix=bitext", "task_mix=interface", group)
    back = results.contrast(sweep, "task_mix=interface", "task_mix=bitext", group)
    assert there is not None
    assert back is not None
    assert (there.seeds_up, there.seeds_down) == (0, 2)
    assert (back.seeds_up, back.seeds_down) == (2, 0)
    assert (there.worse, back.better) == (False, False)


def test_points_of_two_bases_are_compared_by_their_values(tmp_path: Path) -> None:
    results = SweepResults.read(write_experiments(tmp_path, "F1") / "F1_data_source")
    rows = results.results
    rows.loc[rows["point"] == "task_mix=bitext", "gain"] += 0.3  # over a base that is so much lower
    below = results.contrast("data_source", "task_mix=bitext", "task_mix=interface", "held_out, seen")
    assert below is not None
    assert (below.worse, below.seeds_down) == (True, 3)


def test_a_runs_gain_is_that_of_its_groups_by_their_queries(tmp_path: Path) -> None:
    results = SweepResults.read(write_experiments(tmp_path, "F1") / "F1_data_source")
    rows = results.results[(results.results["point"] == "task_mix=interface") & (results.results["seed"] == 1)]
    held_out = rows[rows["domain"].isin(HELD_OUT)]
    by_hand = (held_out["gain"] * held_out["queries"]).sum() / held_out["queries"].sum()
    gains = results.run_gains("data_source", HELD_OUT).set_index(["point", "seed"])["gain"]
    assert gains["task_mix=interface", 1] == pytest.approx(by_hand)


def test_points_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F2") / "F2_data_scale"
    table = pd.read_csv(folder / "results.csv")
    table.sample(frac=1, random_state=1).to_csv(folder / "results.csv", index=False)
    sizes = numbered(SweepResults.read(folder), "data_scale", "pairs_per_language")
    assert list(sizes.values()) == [125, 250, 500, 1000, 2000, 4000]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.csv", "sweep,point\na,b\n"),
        ("comparison.csv", ""),
        ("points.csv", None),
        (
            "points.csv",
            "sweep,point,seed,pairs,steps,negatives_per_query,training_seconds,pairs_per_second,total_seconds,"
            "peak_memory_gb,trained_languages\ndata_source,task_mix=interface,0,1,1,1,1,1,1,1,1\n",
        ),
        ("environment.json", "[]"),
        ("environment.json", None),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, content: str | None) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(UserError) as caught:
        SweepResults.read(folder)
    assert str(folder / name) in str(caught.value)
    assert "retrofit report sweep=NAME" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_point_without_its_cost_is_named_in_one_line(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    points = pd.read_csv(folder / "points.csv")
    points[points["point"] != "task_mix=bitext"].to_csv(folder / "points.csv", index=False)
    with pytest.raises(UserError, match=r"points\.csv: no row of data_source, task_mix=bitext, which results\.csv has"):
        SweepResults.read(folder)


def test_nothing_is_known_of_what_an_environment_has_as_null(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    (folder / "environment.json").write_text('{"commit": null, "machine": null, "commands": ["x"]}')
    environment = SweepResults.read(folder).environment
    assert (environment["commit"], environment["machine"], environment["commands"]) == ("", {}, ["x"])


def test_a_comparison_without_an_interval_is_told_without_one(tmp_path: Path) -> None:
    folder = write_experiments(tmp_path, "F1") / "F1_data_source"
    table = pd.read_csv(folder / "comparison.csv")
    table.loc[table["group"] == "xquad", ["low", "high"]] = float("nan")
    table.to_csv(folder / "comparison.csv", index=False)
    results = SweepResults.read(folder)
    points = ("task_mix=synthetic", "task_mix=bitext")
    without, there = (results.contrast("data_source", *points, group) for group in ("xquad", "retention_bitext"))
    assert without is not None
    assert there is not None
    assert "no interval" in told(without)
    assert "nan" not in told(without)
    assert "no interval" not in told(there)
    page = write_findings(tmp_path, tmp_path / "all.html").page.read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", Words(page).joined)


def test_groups_are_read_without_the_name_of_their_suite() -> None:
    assert read_as("retention_bitext: emoji_name") == "retention: emoji name"
    assert read_as("retention_leads") == "retention leads"
    assert read_as("held_out, seen") == "held out, languages trained on"


def without(folder: Path, point: str | None = None, sweep: str | None = None) -> None:
    """Take a point, of one sweep or of all, or all points of a sweep out of all files of a folder."""
    for name in ("results", "points", "comparison", "languages", "curves"):
        table = pd.read_csv(folder / f"{name}.csv")
        touched = (table["point"] == point) | (table["against"] == point if "against" in table else False)
        gone = (touched if point else True) & (table["sweep"] == sweep if sweep else True)
        table[~gone].to_csv(folder / f"{name}.csv", index=False)
