"""The gate for what a model forgot, on evaluation folders and on run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.analysis.evaluation_folder import MadeUp, write

from retrofit.analysis.evaluated_cells import Cell
from retrofit.analysis.evaluation_results import compare_evaluation, compare_run
from retrofit.analysis.retention import check_retention, named_languages, verdict
from retrofit.errors import UserError
from retrofit.training.run_folder import RunFolder

CELLS = [
    ("held_out", "help", "de"),
    ("held_out", "help", "fi"),
    ("retention", "lead", "de"),
    ("retention", "lead", "th"),
]


def write_run(folder: Path, changes: dict[tuple[str, str], float], noise: float = 0.05) -> Path:
    """A run folder whose retrofitted model changed on some suites and languages; it was trained on help in de."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "suite": suite,
            "task": task,
            "query_language": language,
            "document_language": language,
            "query_id": str(query),
            "query_group": f"{task} {query}",
        }
        for suite, task, language in CELLS
        for query in range(60)
    ]
    frame = pd.DataFrame(rows)
    base = np.random.default_rng(0).uniform(0.3, 0.7, len(frame))
    moved = [changes.get((row.suite, row.query_language), 0.0) for row in frame.itertuples()]
    after = base + moved + np.random.default_rng(1).normal(0, noise, len(frame))
    for model, values in (("base", base), ("retrofitted", after)):
        frame.assign(ndcg_at_10=values).to_parquet(folder / f"queries_{model}.parquet")
    manifest = {"pairs_by_task_and_language": [{"task": "help", "language": "de", "document_language": "de"}]}
    (folder / "data_manifest.json").write_text(json.dumps(manifest))
    retention = {"max_drop": 0.01, "groups": {"high_resource": ["en", "de"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"evaluation": {"retention": retention}}))
    return folder


def test_a_run_that_forgets_fails_and_keeps_its_results(tmp_path: Path) -> None:
    run = RunFolder(
        write_run(tmp_path, {("held_out", "de"): 0.1, ("retention", "de"): -0.06, ("retention", "th"): -0.06})
    )
    run.start((tmp_path / "config.yaml").read_text())
    with pytest.raises(UserError, match=r"^evaluation\.retention\.max_drop=0\.01: ") as caught, run.outcome():
        check_retention(compare_run(run.path).comparison, 0.01)
    said = str(caught.value)
    assert "\n" not in said
    assert "retrofitted fell on retention from 0." in said
    assert "tasks not trained on from" in said
    assert "held_out" not in said
    assert run.status["state"] == "failed"
    assert said in run.status["reason"]
    left = pd.read_csv(run.path / "retention.csv", keep_default_na=False)
    assert left.query("level == 'suite'").set_index("suite")["verdict"].to_dict() == {
        "held_out": "gained", "retention": "lost",
    }  # fmt: skip
    languages = left[(left["level"] == "language") & (left["suite"] == "held_out")].set_index("group")["verdict"]
    assert languages.to_dict() == {"de": "gained", "fi": "kept"}


@pytest.mark.parametrize(
    ("changes", "noise", "max_drop"),
    [
        ({("held_out", "de"): 0.1}, 0.05, 0.0),  # a gain
        ({("retention", "de"): -0.06, ("retention", "th"): -0.06}, 0.05, None),  # not asked
        ({("retention", "de"): -0.06, ("retention", "th"): -0.06}, 0.05, 0.2),  # allowed
        ({("retention", "de"): -0.01, ("retention", "th"): -0.01}, 0.5, 0.001),  # as likely chance
        ({("held_out", "de"): -0.06, ("retention", "de"): 0.06}, 0.05, 0.01),  # where it was trained
    ],
)
def test_a_run_passes(
    tmp_path: Path, changes: dict[tuple[str, str], float], noise: float, max_drop: float | None
) -> None:
    check_retention(compare_run(write_run(tmp_path, changes, noise)).comparison, max_drop)


def test_a_language_that_was_not_trained_on_is_watched_in_the_training_domain_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, {("held_out", "de"): 0.2, ("held_out", "fi"): -0.2})
    with pytest.raises(UserError, match="retrofitted fell on languages not trained on from"):
        check_retention(compare_run(run).comparison, 0.01)


def test_a_group_that_fell_within_a_suite_that_did_not_fails(tmp_path: Path) -> None:
    run = write_run(tmp_path, {("held_out", "de"): 0.2, ("retention", "de"): -0.1, ("retention", "th"): 0.15})
    with pytest.raises(UserError, match="retrofitted fell on high_resource of retention from"):
        check_retention(compare_run(run).comparison, 0.01)


def test_peers_are_not_judged(tmp_path: Path) -> None:
    made = MadeUp({"base": {}, "ours": {"held_out": 0.1}, "peer": {"retention_leads": -0.3}})
    comparison = compare_evaluation(write(tmp_path, made)).comparison
    check_retention(comparison, 0.0)
    forgot = MadeUp({"base": {}, "ours": {"retention_leads": -0.3}, "peer": {}})
    with pytest.raises(UserError, match="ours fell on retention_leads from"):
        check_retention(compare_evaluation(write(tmp_path, forgot)).comparison, 0.0)


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("zh", "zh-Hans"),
        ("eng-Latn", "en"),
        ("deu", "de"),
        ("mixed", "mixed"),
        ("cmn", "zh-Hans"),
        ("arb", "ar"),
        ("nb", "no"),
        ("und", "und"),
    ],
)
def test_a_language_is_found_however_it_is_spelled(code: str, group: str) -> None:
    cell = Cell("suite", "retrieval", "task", code, code, ("base",), np.zeros((1, 1)), None, np.array(["g"]))
    other = Cell("suite", "retrieval", "task", "zh-Hant", "zh-Hant", ("base",), np.zeros((1, 1)), None, np.array(["g"]))
    columns = ["task", "query_language", "document_language"]
    found = named_languages([cell, other], pd.DataFrame(columns=columns), {"ours": [group], "none": ["sw"]})
    assert found == {"ours": [cell]}


@pytest.mark.parametrize(("code", "group"), [("nn", "no"), ("yue", "zh-Hans"), ("und", "en"), ("arz", "ar")])
def test_a_language_is_not_taken_for_another(code: str, group: str) -> None:
    cell = Cell("suite", "retrieval", "task", code, code, ("base",), np.zeros((1, 1)), None, np.array(["g"]))
    columns = ["task", "query_language", "document_language"]
    assert named_languages([cell], pd.DataFrame(columns=columns), {"ours": [group]}) == {}


def test_verdicts() -> None:
    assert [verdict(0.1, 0.01), verdict(-0.1, 0.01), verdict(0.1, 0.05), verdict(0.0, 0.01)] == [
        "gained", "lost", "kept", "kept",
    ]  # fmt: skip
