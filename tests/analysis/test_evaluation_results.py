"""Comparisons of evaluated models: against naive arithmetic, and against what the made up scores hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from tests.analysis.evaluation_folder import MadeUp, scores, write

from retrofit.analysis.evaluation_results import COMPARISON_COLUMNS, TABLE_COLUMNS, compare_evaluation
from retrofit.analysis.significance import holm
from retrofit.errors import UserError

MADE = MadeUp(
    models={
        "base": {},
        "ours": {"held_out": 0.1, "retention_leads": -0.08, "tatoeba": 0.25, "sts": 0.03},
        "bm25": {"held_out": -0.2},
    },
    without=[("bm25", "tatoeba"), ("bm25", "sts")],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("evaluation"), MADE)
    compare_evaluation(folder)
    return folder


@pytest.fixture(scope="module")
def compared(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "comparison.csv", keep_default_na=False, na_values={"effect_size": [""]})


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "table.csv", keep_default_na=False)


def row(frame: pd.DataFrame, **wanted: str) -> pd.Series:
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def naive(model: str) -> dict[str, float]:
    """The mean of each suite, by groupby and scipy."""
    frame = scores(MADE)
    frame = frame[(frame["model"] == model) & (frame["metric"] != "recall_at_100")]
    cells: dict[tuple[str, str, str], float] = {}
    for (suite, task, language), rows in frame.groupby(["suite", "task", "query_language"]):
        wide = rows.pivot(index="item_id", columns="metric", values="value")
        cells[suite, task, language] = (
            spearmanr(wide["cosine"], wide["gold"]).statistic if suite == "sts" else wide.iloc[:, 0].mean()
        )
    means = pd.Series(cells).groupby(level=[0, 1]).mean().groupby(level=0).mean()
    return {str(suite): float(value) for suite, value in means.items()}


def test_values_are_means_over_tasks_of_means_over_languages(table: pd.DataFrame) -> None:
    for model in ("base", "ours", "bm25"):
        expected = naive(model)
        suites = table[(table["model"] == model) & (table["level"] == "suite")].set_index("suite")["value"]
        assert suites.to_dict() == pytest.approx(expected, abs=1e-6)
    kind = row(table, model="ours", level="kind", group="retrieval")
    ours = naive("ours")
    assert kind["value"] == pytest.approx((ours["held_out"] + ours["retention_leads"]) / 2, abs=1e-6)
    assert tuple(table.columns) == TABLE_COLUMNS
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_differences_are_found_in_their_direction(compared: pd.DataFrame) -> None:
    assert tuple(compared.columns) == COMPARISON_COLUMNS
    suites = compared[(compared["level"] == "suite") & (compared["model"] == "ours")].set_index("suite")
    assert suites["verdict"].to_dict() == {
        "held_out": "gained", "retention_leads": "lost", "tatoeba": "gained", "sts": "gained",
    }  # fmt: skip
    assert suites["domain"].to_dict() == {
        "held_out": "training", "retention_leads": "other", "tatoeba": "other", "sts": "other",
    }  # fmt: skip
    assert (suites["low"] <= suites["difference"]).all()
    assert (suites["difference"] <= suites["high"]).all()
    assert suites.loc["sts", "metric"] == "spearman"
    assert suites["effect"].to_dict() == {"held_out": "d_z", "retention_leads": "d_z", "tatoeba": "d_z", "sts": "q"}
    assert (suites["difference"] - (suites["value"] - suites["reference_value"])).abs().max() < 2e-6
    lost = suites.loc["retention_leads"]
    frame = scores(MADE).query("suite == 'retention_leads' and metric == 'ndcg_at_10'")
    wide = frame.pivot(index=["query_language", "item_id"], columns="model", values="value")
    paired = wide["ours"] - wide["base"]
    assert lost["effect_size"] == pytest.approx(paired.mean() / paired.std(ddof=0), abs=1e-5)


def test_gained_and_lost_stand_only_where_corrected_p_values_are_small(compared: pd.DataFrame) -> None:
    assert ((compared["verdict"] != "kept") == (compared["p_holm"] < 0.05)).all()
    assert (compared["p_holm"] >= compared["p"]).all()
    languages = compared[(compared["level"] == "language") & (compared["suite"] == "tatoeba")]
    smallest = languages["p"].min()
    assert languages["p_holm"].min() == pytest.approx(min(1, 2 * smallest))  # of two languages of one suite and model


def test_what_is_all_of_a_suite_is_corrected_as_the_suite_is(compared: pd.DataFrame) -> None:
    """The only task, kind or named group of a suite asks the suite's question: two verdicts on it could differ."""
    ours = compared[compared["model"] == "ours"].set_index(["level", "suite", "group"])["p_holm"]
    suites = ours["suite"].droplevel("suite")
    assert ours["task", "tatoeba", "tatoeba"] == suites["tatoeba"]
    assert ours["kind", "", "sts"] == suites["sts"]
    p = compared[compared["model"] == "ours"].set_index(["level", "suite", "group"])["p"]
    assert sorted(suites) == pytest.approx(sorted(holm(p["suite"].tolist())), abs=1e-6)
    of_bm25 = compared[compared["model"] == "bm25"].set_index(["level", "suite", "group"])["p_holm"]
    assert of_bm25["task", "retention_leads", "definition"] == of_bm25["suite", "retention_leads", "retention_leads"]


def test_a_model_stands_only_where_it_was_measured(compared: pd.DataFrame, table: pd.DataFrame) -> None:
    for frame in (compared, table):
        bm25 = frame[frame["model"] == "bm25"]
        assert set(bm25["suite"]) == {"held_out", "retention_leads", ""}
        assert set(bm25.loc[bm25["level"] == "kind", "group"]) == {"retrieval"}
        assert not ((bm25["level"] == "group") & (bm25["suite"] == "")).any()
    assert "base" not in set(compared["model"])


def test_named_groups_are_of_the_model_whose_training_names_them(compared: pd.DataFrame) -> None:
    over_all = compared[(compared["level"] == "group") & (compared["suite"] == "") & (compared["model"] == "ours")]
    assert set(over_all["group"]) == {
        "high_resource", "languages trained on", "languages not trained on", "tasks trained on", "tasks not trained on",
    }  # fmt: skip
    assert over_all.set_index("group")["domain"].to_dict() == {
        "high_resource": "other", "languages trained on": "training", "languages not trained on": "other",
        "tasks trained on": "training", "tasks not trained on": "other",
    }  # fmt: skip
    assert row(over_all, group="high_resource")["items"] == 60 + 50 + 60 + 120 + 150 + 100
    assert row(over_all, group="languages not trained on")["items"] == 40 + 60 + 80 + 100
    assert row(over_all, group="high_resource")["effect"] == ""  # means and correlations have no effect size in common
    within = compared[(compared["level"] == "group") & (compared["suite"] == "held_out")]
    assert set(within.loc[within["model"] == "bm25", "group"]) == {"high_resource"}
    assert set(within.loc[within["model"] == "ours", "group"]) == {
        "high_resource", "languages trained on", "languages not trained on",
    }  # fmt: skip


def test_the_same_scores_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = write(tmp_path, MADE)
    compare_evaluation(again)
    for name in ("comparison.csv", "table.csv"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_seeds_of_a_configuration_are_one_model(tmp_path: Path) -> None:
    names = {f"seed{number}": "ours" for number in range(3)}
    changes = {"seed0": 0.12, "seed1": 0.0, "seed2": 0.03}
    models = {"base": {}} | {name: {"held_out": change} for name, change in changes.items()}
    made = MadeUp(models, trained=list(names), configurations=names)
    found = compare_evaluation(write(tmp_path, made))
    suite = row(found.comparison, model="ours", level="suite", suite="held_out")
    assert suite["seeds"] == 3
    single = compare_evaluation(write(tmp_path / "alone", MadeUp(models, trained=list(names)))).comparison
    alone = single[(single["level"] == "suite") & (single["suite"] == "held_out")]
    assert suite["value"] == pytest.approx(alone["value"].mean())
    # That seeds differ is part of what is not known.
    assert suite["high"] - suite["low"] > 2 * (alone["high"] - alone["low"]).max()
    assert suite["domain"] == "training"


def test_another_reference_can_be_named(tmp_path: Path) -> None:
    found = compare_evaluation(write(tmp_path, MadeUp(MADE.models, without=MADE.without, reference="bm25")))
    suite = row(found.comparison, model="base", level="suite", suite="held_out")
    assert suite["against"] == "bm25"
    assert suite["verdict"] == "gained"
    assert set(found.comparison["suite"]) == {"held_out", "retention_leads", ""}


def test_models_without_a_difference_are_kept_everywhere(tmp_path: Path) -> None:
    found = compare_evaluation(write(tmp_path, MadeUp({"base": {}, "ours": {}}))).comparison
    assert set(found["verdict"]) == {"kept"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("rows", "were not measured on the same items"),
        ("twice", "were not measured on the same items"),
        ("nan", "a value is no number"),
        ("kind", "kind 'guessing': expected one of"),
        ("metric", "no item has this metric"),
        ("column", "models.csv cannot be read: no column 'configuration'"),
        ("reference", "reference=nobody: expected one of"),
        ("retention", "no evaluation.retention"),
        ("missing", "scores.parquet cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, damage: str, message: str) -> None:
    made = MadeUp({"base": {}, "ours": {}}, reference="nobody" if damage == "reference" else None)
    folder = write(tmp_path, made)
    path = folder / "scores.parquet"
    frame = pd.read_parquet(path)
    if damage == "rows":
        frame = frame.drop(frame.index[(frame["model"] == "ours") & (frame["metric"] == "accuracy")][:1])
    elif damage == "twice":
        frame = pd.concat([frame, frame[frame["metric"] == "ndcg_at_10"]])
    elif damage == "nan":
        frame.loc[frame["metric"] == "cosine", "value"] = np.nan
    elif damage == "kind":
        frame.loc[frame["suite"] == "tatoeba", "kind"] = "guessing"
    elif damage == "metric":
        frame.loc[frame["metric"] == "accuracy", "metric"] = "f1"
        frame = pd.concat([frame, frame[frame["metric"] == "f1"].assign(metric="gold")])
    elif damage == "column":
        models = pd.read_csv(folder / "models.csv").drop(columns="configuration")
        models.to_csv(folder / "models.csv", index=False)
    elif damage == "retention":
        (folder / "config.yaml").write_text("evaluation: {}")
    frame.to_parquet(path, index=False)
    if damage == "missing":
        path.unlink()
    with pytest.raises(UserError, match=message) as caught:
        compare_evaluation(folder)
    assert "\n" not in str(caught.value)


def test_repetitions_on_the_same_texts_are_no_items(tmp_path: Path) -> None:
    folder = write(tmp_path, MADE)
    frame = pd.read_parquet(folder / "scores.parquet")
    repeated = frame[(frame["suite"] == "held_out") & (frame["metric"] == "ndcg_at_10")]
    clusters = repeated.assign(suite="clusters", kind="clustering", metric="v_measure")
    pd.concat([frame, clusters]).to_parquet(folder / "scores.parquet")
    found = compare_evaluation(folder)
    compared = row(found.comparison, suite="clusters", level="suite", model="ours")
    gained = row(found.comparison, suite="held_out", level="suite", model="ours")
    assert compared["difference"] == pytest.approx(gained["difference"])
    assert gained["verdict"] == "gained"
    assert compared["verdict"] == "kept"
    assert np.isnan([compared["low"], compared["high"]]).all()
    assert np.isnan(row(found.table, suite="clusters", level="suite", model="ours")["low"])
