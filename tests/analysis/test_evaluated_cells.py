"""The scores of every item, read from folders: against a dictionary, for whatever was measured."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.analysis.evaluation_folder import MadeUp, write

from retrofit.analysis.evaluated_cells import GOLD, METRIC_BY_KIND, Evaluation, read_config, read_table
from retrofit.errors import UserError

MODELS = ["base", "ours", "Ours", "NA"]
KEYS = st.tuples(
    st.sampled_from(["held_out", "sts", "NA"]),
    st.sampled_from(sorted(METRIC_BY_KIND)),
    st.sampled_from(["help", "null", "zz"]),
    st.sampled_from(["de", "NA", "zh-Hans"]),
    st.sampled_from(["de", "en"]),
)
CELLS = st.dictionaries(
    KEYS, st.tuples(st.sets(st.sampled_from(MODELS), min_size=1), st.integers(1, 4)), min_size=1, max_size=6
)


def rows_of(key: tuple[str, ...], model: str, items: int, metrics: list[str], seed: int) -> list[dict[str, Any]]:
    suite, kind, task, query, document = key
    generator = np.random.default_rng(seed)
    gold = np.arange(items) / 4
    return [
        {"model": model, "suite": suite, "kind": kind, "task": task, "query_language": query,
         "document_language": document, "item_id": f"i{item}", "item_group": f"{query} {item % 2}", "metric": metric,
         "value": gold[item] if metric == GOLD else generator.random()}
        for metric in metrics for item in range(items)
    ]  # fmt: skip


@settings(max_examples=40)
@given(CELLS, st.integers(0, 1000))
def test_cells_are_those_of_a_dictionary_in_whatever_order_rows_stand(
    cells: dict[tuple[str, ...], tuple[set[str], int]], seed: int
) -> None:
    rows: list[dict[str, Any]] = []
    for key, (models, items) in cells.items():
        metrics = [METRIC_BY_KIND[key[1]], "recall_at_100", *([GOLD] if key[1] == "sts" else [])]
        for model in models:
            rows += rows_of(key, model, items, metrics, seed + len(rows))
    frame = pd.DataFrame(rows).sample(frac=1, random_state=seed)
    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root), MadeUp({name: {} for name in MODELS}))
        frame.to_parquet(folder / "scores.parquet", index=False)
        found = Evaluation.read(folder).cells
    value = {(*_key(row), row["model"], row["metric"], row["item_id"]): row["value"] for row in rows}
    assert [(c.suite, c.kind, c.task, c.query_language, c.document_language) for c in found] == sorted(cells)
    for key, cell in zip(sorted(cells), found, strict=True):
        models, items = cells[key]
        assert cell.models == tuple(sorted(models))
        metric = METRIC_BY_KIND[key[1]]
        names = [f"i{item}" for item in range(items)]
        scored = np.array([[value[*key, m, metric, name] for m in cell.models] for name in names])
        if key[1] == "clustering":  # repetitions on the same texts are one item
            scored = scored.mean(axis=0, keepdims=True)
        np.testing.assert_array_equal(cell.values, scored)
        alike = [f"{key[3]} {item % 2}" for item in range(items)]
        assert cell.groups.tolist() == ([key[3]] if key[1] == "clustering" else alike)
        expected = [value[*key, cell.models[0], GOLD, name] for name in names] if key[1] == "sts" else None
        assert (None if cell.gold is None else cell.gold.tolist()) == expected


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("suite", "kind", "task", "query_language", "document_language"))


def test_models_of_a_configuration_are_one_and_name_the_strata_they_were_trained_on(tmp_path: Path) -> None:
    seeds = {"seed0": "ours", "seed1": "ours"}
    made = MadeUp({"base": {}, "seed0": {}, "seed1": {}}, trained=list(seeds), configurations=seeds, reference="seed1")
    found = Evaluation.read(write(tmp_path, made))
    assert found.models == {"base": ["base"], "ours": ["seed0", "seed1"]}
    assert found.reference == "ours"
    assert found.training["model"].tolist() == ["ours"] * 3
    assert found.language_groups == {"high_resource": ["en", "de", "zh-Hans"]}


def test_the_first_model_is_the_reference_where_none_is_named(tmp_path: Path) -> None:
    assert Evaluation.read(write(tmp_path, MadeUp({"other": {}, "base": {}}))).reference == "other"


def test_a_run_has_the_scores_of_its_base_and_of_what_became_of_it(tmp_path: Path) -> None:
    cell = {"suite": "held_out", "task": "help", "query_language": "NA", "document_language": "en"}
    for model, values in (("base", [0.25, 0.5]), ("retrofitted", [0.75, 1.0])):
        frame = pd.DataFrame([{**cell, "query_id": str(place), "ndcg_at_10": v} for place, v in enumerate(values)])
        frame = frame.assign(query_group=["second", "first"])
        frame[::-1].to_parquet(tmp_path / f"queries_{model}.parquet")
    manifest = '{"pairs_by_task_and_language": [{"task": "help", "language": "de", "document_language": "en"}]}'
    (tmp_path / "data_manifest.json").write_text(manifest, encoding="utf-8")
    retention = {"max_drop": None, "groups": {"north": ["fi"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"evaluation": {"retention": retention}}), encoding="utf-8")
    found = Evaluation.of_run(tmp_path)
    (read,) = found.cells
    assert (read.suite, read.kind, read.task, read.query_language) == ("held_out", "retrieval", "help", "NA")
    assert (read.models, read.values.tolist()) == (("base", "retrofitted"), [[0.25, 0.75], [0.5, 1.0]])
    assert read.groups.tolist() == ["second", "first"]
    assert (found.reference, found.language_groups) == ("base", {"north": ["fi"]})
    assert found.training.values.tolist() == [["retrofitted", "help", "de", "en"]]
    (tmp_path / "queries_base.parquet").unlink()
    with pytest.raises(UserError, match=r"queries_base\.parquet cannot be read: [^\n]*; measure again$"):
        Evaluation.of_run(tmp_path)


def test_a_table_keeps_texts_that_look_like_nothing_or_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("model,query_language,group,value,p\n007,NA,,0.5,\nnull,nan,None,1,0.25\n", encoding="utf-8")
    found = read_table(path, ["model", "p"])
    assert found[["model", "query_language", "group"]].values.tolist() == [["007", "NA", ""], ["null", "nan", "None"]]
    assert found["value"].tolist() == [0.5, 1.0]
    assert found["p"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"is missing: expected the folder of an evaluation"),
        (b"", r"cannot be read: No columns to parse from file; evaluate again"),
        (b"model\n\xff\n", r"cannot be read: .*; evaluate again"),
        (b'model\n"a\n', r"cannot be read: .*; evaluate again"),
        (b"model,value\na,much\n", r"cannot be read: no column 'kind'; evaluate again"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}/table\.csv {expected}[^\n]*$"):
        read_table(tmp_path / "table.csv", ["model", "kind"])


@pytest.mark.parametrize("text", ["", "- a list", "evaluation:", "evaluation: {retention: {max_drop: 0.1}}"])
def test_a_configuration_that_says_nothing_of_retention_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: no evaluation\.retention with max_drop and groups; [^\n]*$"):
        read_config(tmp_path)


def test_a_cosine_without_gold_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, MadeUp({"base": {}, "ours": {}}))
    frame = pq.read_table(folder / "scores.parquet").to_pandas()
    frame[(frame["metric"] != GOLD) | (frame["item_id"] != "0")].to_parquet(folder / "scores.parquet", index=False)
    with pytest.raises(UserError, match=r"sts, sts, sts, en, en: expected gold for every cosine; evaluate again$"):
        Evaluation.read(folder)
