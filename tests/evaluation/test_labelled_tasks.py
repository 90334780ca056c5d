"""Clustering and classification tasks from pairs and from folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.beir_folders import beir
from tests.evaluation.held_out_pairs import held_out_pairs, source_of, texts_of

from retrofit.data.records import Pair
from retrofit.errors import UserError
from retrofit.evaluation.labelled_tasks import (
    classification_tasks_from_folder,
    classification_tasks_from_pairs,
    clustering_tasks_from_folder,
    clustering_tasks_from_pairs,
    labelled,
)

OPTIONS: dict[str, Any] = {
    "suite": "s", "split": "test", "tasks": None, "languages": None, "sides": ["query", "positives"],
    "max_labels": None, "min_texts_per_label": 2, "max_texts_per_label": None,
}  # fmt: skip


def test_a_text_with_two_labels_has_none_and_case_makes_no_other_text() -> None:
    pairs = [("Tea", "a"), ("tea", "a"), ("milk", "a"), ("Wine", "a"), ("wine", "b"), ("beer", "b"), ("rum", "c")]
    texts = labelled(pairs, None, 1, None)
    assert {label: set(members) for label, members in texts.items()} == {
        "a": {"Tea", "milk"}, "b": {"beer"}, "c": {"rum"},
    }  # fmt: skip
    assert list(labelled(pairs, 1, 1, None)) == ["a"]
    assert list(labelled(pairs, None, 2, None)) == ["a"]
    assert labelled(reversed(pairs), None, 1, None) == texts
    assert labelled(pairs, None, 1, 1)["a"] == texts["a"][:1]


def test_labels_are_groups_and_languages_are_apart() -> None:
    pairs = [
        Pair(f"{group} {language} {number}", (f"{language} {group} passage {number}",), "help", language, language, "s",
             group, "test")
        for language in ("de", "en") for group in ("hue", "knx") for number in range(3)
    ]  # fmt: skip
    german, english = clustering_tasks_from_pairs(source_of(pairs), **OPTIONS | {"sides": ["positives"]})
    assert (german.task, german.query_language, german.document_language) == ("clustering", "de", "de")
    assert all(text.split()[:2] == ["en", label] for text, label in zip(english.texts, english.labels, strict=True))
    assert Counter(english.labels) == {"hue": 3, "knx": 3}
    (asked, _) = clustering_tasks_from_pairs(source_of(pairs), **OPTIONS | {"sides": ["query"], "tasks": ["help"]})
    assert asked.task == "help"
    assert set(asked.texts) == {pair.query for pair in pairs if pair.language == "de"}
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s\.min_texts_per_label=9: no language has two labels"):
        clustering_tasks_from_pairs(source_of(pairs), **OPTIONS | {"min_texts_per_label": 9})


@settings(max_examples=60)
@given(
    pairs=held_out_pairs(("de", "en")),
    split=st.sampled_from(["validation", "test"]),
    labels=st.one_of(st.none(), st.integers(2, 4)),
    most=st.one_of(st.none(), st.integers(2, 6)),
    order=st.randoms(use_true_random=False),
)
def test_both_halves_are_of_the_split_and_share_nothing(
    pairs: list[Pair], split: str, labels: int | None, most: int | None, order: Any
) -> None:
    options = OPTIONS | {"split": split, "max_labels": labels, "max_texts_per_label": most}
    try:
        tasks = classification_tasks_from_pairs(source_of(pairs), **options)
        clusters = clustering_tasks_from_pairs(source_of(pairs), **options)
    except UserError as error:
        assert "no language has two labels" in str(error) or "no validation pairs" in str(error)  # noqa: PT017
        return
    groups = {
        (pair.language, text): pair.group for pair in pairs if pair.split == split
        for text in (pair.query, *pair.positives)
    }  # fmt: skip
    for task, cluster in zip(tasks, clusters, strict=True):
        learnt, told = {text.casefold() for text in task.train_texts}, {text.casefold() for text in task.texts}
        assert not learnt & told
        assert len(learnt) + len(told) == len(task.train_texts) + len(task.texts) == len(cluster.texts)
        assert set(task.labels) == set(task.train_labels) == set(cluster.labels)
        assert 1 < len(set(task.labels)) <= (labels or 99)
        assert max(Counter(cluster.labels).values()) <= (most or 99)
        assert {*task.texts, *task.train_texts} == set(cluster.texts) <= texts_of(pairs, split)
        for text, label in zip(cluster.texts, cluster.labels, strict=True):
            assert groups[cluster.query_language, text] == label
    shuffled = pairs.copy()
    order.shuffle(shuffled)
    assert classification_tasks_from_pairs(source_of(shuffled), **options) == tasks


CORPUS = [
    {"_id": f"d{number}", "text": f"document {number}", "lang": "en", "label": ("sports", "travel")[number % 2]}
    for number in range(8)
] + [{"_id": "none", "text": "without", "lang": "en"}]
QUERIES = [
    {"_id": f"q{number}", "text": f"Anfrage {number}", "lang": ("de", "fr")[number // 4]} for number in range(6)
] + [{"_id": "q9", "text": "unlabelled", "lang": "de"}]
# Document 0 and 1 answer queries of both languages, 2 and 3 of one, 4 to 7 answer none.
QRELS = "".join(f"q{number}\td{number % 4}\t1\n" for number in range(6)) + "q9\tnone\t1\n"


def test_topics_of_a_folder_are_learnt_from_documents_that_answer_nothing(tmp_path: Path) -> None:
    german, french = classification_tasks_from_folder(beir(tmp_path / "topics", CORPUS, QUERIES, QRELS), "s")
    assert (german.task, german.query_language, german.document_language) == ("topics", "de", "en")
    learnt = dict(zip(german.train_texts, german.train_labels, strict=True))
    assert learnt == {
        "document 4": "sports", "document 5": "travel", "document 6": "sports", "document 7": "travel",
    }  # fmt: skip
    assert dict(zip(german.texts, german.labels, strict=True)) == {
        "Anfrage 0": "sports", "Anfrage 1": "travel", "Anfrage 2": "sports", "Anfrage 3": "travel",
    }  # fmt: skip
    assert set(french.texts) == {"Anfrage 4", "Anfrage 5"}
    (small,) = classification_tasks_from_folder(tmp_path / "topics", "s", ["fr"], max_texts_per_label=1)
    assert len(small.train_texts) == 2


def test_topics_of_a_folder_cluster_its_documents_and_its_queries(tmp_path: Path) -> None:
    german, english, french = clustering_tasks_from_folder(beir(tmp_path, CORPUS, QUERIES, QRELS), "s")
    assert [task.query_language for task in (german, english, french)] == ["de", "en", "fr"]
    assert len(german.texts) == 4
    assert set(english.texts) == {f"document {number}" for number in range(8)}
    assert dict(zip(french.texts, french.labels, strict=True)) == {"Anfrage 4": "sports", "Anfrage 5": "travel"}


def test_a_folder_without_labels_is_an_error(tmp_path: Path) -> None:
    corpus = [{key: value for key, value in row.items() if key != "label"} for row in CORPUS]
    folder = beir(tmp_path, corpus, QUERIES, QRELS)
    for build in (clustering_tasks_from_folder, classification_tasks_from_folder):
        with pytest.raises(UserError, match=r"^folders=.*expected documents with label$"):
            build(folder, "s")
