import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retrofit.artefacts import default_cache
from retrofit.data.embedded import integrations
from retrofit.data.embedded.corpus import TASKS, build_embedded_corpus, share_positives
from retrofit.data.records import PAIR_SCHEMA, SPLITS, Pair, Split
from retrofit.data.storage import PAIRS, REPORT, nested, read_records


def pair(query: str, *positives: str, split: Split = "train", task: str = "field_help") -> Pair:
    return Pair(query, positives, task, "en", "en", "made up", f"group of {split}", split)


def test_two_tasks_with_one_query_know_each_others_answers() -> None:
    shared, added = share_positives(
        [pair("a: Host", "x"), pair("a: Host", "y", "x", task="title_body"), pair("b", "z")]
    )
    assert [each.positives for each in shared] == [("x", "y"), ("y", "x"), ("z",)]
    assert added == 1


def test_an_answer_from_another_split_is_shared_only_if_it_stands_in_this_one_too() -> None:
    pairs = [
        pair("q", "x", split="test"),
        pair("q", "only in training", "boilerplate"),
        pair("other", "boilerplate", split="test"),
    ]
    shared, _ = share_positives(pairs)
    assert shared[0].positives == ("x", "boilerplate")


@pytest.fixture(scope="module")
def folder() -> Path:
    return build_embedded_corpus(default_cache())


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    table = read_records(folder / PAIRS)
    assert table.schema.equals(PAIR_SCHEMA)
    return table.to_pylist()


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPORT).read_text(encoding="utf-8"))


# What the pinned versions hold, to the row; another number means that a reader changed and CODE_VERSION must too.
ROWS = {
    "action_desc": 18_466,
    "bitext": 113_699,
    "field_desc": 28_145,
    "field_help": 27_079,
    "issue_fix": 5_810,
    "title_body": 13_369,
    "definition": 23_582,
    "lead_sentence": 18_270,
    "utterance": 20_425,
    "emoji_name": 21_120,
}


@pytest.mark.embedded
def test_rows_per_task(report: dict[str, Any]) -> None:
    found = {task: sum(languages.values()) for tasks in report["rows"].values() for task, languages in tasks.items()}
    assert found == ROWS
    assert set(found) == set(TASKS)


@pytest.mark.embedded
def test_31_languages_of_interface_text_and_none_is_a_scrap(report: dict[str, Any]) -> None:
    counts: Counter[str] = Counter()
    for task in integrations.TASKS:
        if task != "bitext":
            counts.update(report["rows"]["homeassistant"][task])
    assert set(counts) == set(integrations.LANGUAGES)
    assert min(counts.values()) >= 500


@pytest.mark.embedded
def test_the_report_counts_the_pairs(report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert report["pairs"] == nested(Counter((row["task"], row["language"], row["split"]) for row in rows))


@pytest.mark.embedded
def test_every_pair_is_whole(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["query"].strip()
        assert row["positives"]
        assert all(text.strip() for text in row["positives"])
        assert len(set(row["positives"])) == len(row["positives"]) == len(row["positive_ids"])
        assert row["query"] not in row["positives"]


@pytest.mark.embedded
def test_no_group_and_no_text_crosses_splits(rows: list[dict[str, Any]]) -> None:
    groups: dict[str, set[str]] = {split: set() for split in SPLITS}
    texts: dict[str, set[str]] = {split: set() for split in SPLITS}
    for row in rows:
        groups[row["split"]].add(row["group"])
        texts[row["split"]].update((row["query"], *row["positives"]))
    for kind in (groups, texts):
        assert not kind["train"] & kind["test"]
        assert not kind["train"] & kind["validation"]
        assert not kind["validation"] & kind["test"]


@pytest.mark.embedded
def test_every_task_is_held_out_in_a_fair_part(rows: list[dict[str, Any]]) -> None:
    counts = Counter((row["task"], row["split"]) for row in rows)
    for task in TASKS:
        total = sum(counts[task, split] for split in SPLITS)
        for split in ("validation", "test"):
            assert 0.08 < counts[task, split] / total < 0.18, (task, split)


@pytest.mark.embedded
def test_no_held_out_query_has_an_unlabelled_answer(rows: list[dict[str, Any]]) -> None:
    answers: dict[tuple[str, ...], set[frozenset[str]]] = {}
    for row in rows:
        key = (row["split"], row["language"], row["document_language"], row["query"])
        answers.setdefault(key, set()).add(frozenset(row["positives"]))
    assert all(len(sets) == 1 for sets in answers.values())


@pytest.mark.embedded
def test_no_markup_is_left(rows: list[dict[str, Any]]) -> None:
    marked = [
        text
        for row in rows
        if row["source"] == "homeassistant"
        for text in (row["query"], *row["positives"])
        if any(mark in text for mark in ("](", "**", "`", "[%", "  ", "\n"))
    ]
    assert marked == []
