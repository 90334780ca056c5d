"""Retrieval across languages, from pairs and from folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.beir_folders import beir
from tests.evaluation.held_out_pairs import held_out_pairs, source_of, texts_of

from retrofit.data.records import Pair, content_id, shown_id
from retrofit.errors import UserError
from retrofit.evaluation.tasks import RetrievalTask
from retrofit.evaluation.tasks_across_languages import (
    MIXED,
    cross_lingual_tasks_from_folder,
    cross_lingual_tasks_from_pairs,
    mixed_tasks_from_folder,
    mixed_tasks_from_pairs,
)


def pair(query: str, passage: str, language: str, group: str, task: str = "help") -> Pair:
    return Pair(query, (passage,), task, language, language, "made up", group, "test")


PAIRS = [
    pair("Ort", "Wo es ist.", "de", "hue.place"),
    pair("place", "Where it is.", "en", "hue.place"),
    pair("lieu", "Où il est.", "fr", "hue.place"),
    pair("Zeit", "Wann es war.", "de", "hue.time"),
    pair("time", "When it was.", "en", "hue.time"),
    pair("other", "Of the same key, but another task.", "en", "hue.time", task="desc"),
    pair("seul", "Sans pareil.", "fr", "hue.alone"),
    Pair("bitext", ("Zweisprachig.",), "help", "en", "de", "made up", "hue.time", "test"),
]


def cross(pairs: list[Pair] = PAIRS, **options: Any) -> dict[tuple[str, str], RetrievalTask]:
    arguments = {
        "suite": "s", "split": "test", "tasks": None, "languages": None, "document_languages": None,
        "max_queries": None, "max_passages": None, **options,
    }  # fmt: skip
    tasks = cross_lingual_tasks_from_pairs(source_of(pairs), **arguments)
    assert [(task.query_language, task.document_language) for task in tasks] == sorted(
        {(task.query_language, task.document_language) for task in tasks}
    )
    return {(task.query_language, task.document_language): task for task in tasks}


def mixed(pairs: list[Pair] = PAIRS, **options: Any) -> dict[str, RetrievalTask]:
    arguments = {
        "suite": "s", "split": "test", "tasks": None, "languages": None, "relevant": "all", "max_queries": None,
        "max_passages": None, **options,
    }  # fmt: skip
    tasks = mixed_tasks_from_pairs(source_of(pairs), **arguments)
    assert {task.document_language for task in tasks} == {MIXED}
    return {task.query_language: task for task in tasks}


def answers(task: RetrievalTask) -> dict[str, set[str]]:
    return {task.queries[query]: {task.corpus[passage] for passage in judged} for query, judged in task.qrels.items()}


def test_what_answers_is_what_the_same_key_answers_in_the_other_language() -> None:
    tasks = cross()
    assert set(tasks) == {("de", "en"), ("de", "fr"), ("en", "de"), ("en", "fr"), ("fr", "de"), ("fr", "en")}
    assert answers(tasks["de", "en"]) == {"Ort": {"Where it is."}, "Zeit": {"When it was."}}
    assert set(tasks["de", "en"].corpus.values()) == {pair.positives[0] for pair in PAIRS[:-1] if pair.language == "en"}
    assert answers(tasks["de", "fr"]) == {"Ort": {"Où il est."}}
    assert {tasks["de", "en"].groups[query] for query in tasks["de", "en"].queries} == {"hue.place", "hue.time"}
    assert set(cross(languages=["fr"], document_languages=["de", "en"])) == {("fr", "de"), ("fr", "en")}


def test_a_mixed_corpus_wants_the_answers_of_all_languages_or_of_its_own() -> None:
    everywhere, own = mixed(), mixed(relevant="own")
    assert answers(everywhere["de"]) == {
        "Ort": {"Wo es ist.", "Where it is.", "Où il est."},
        "Zeit": {"Wann es war.", "When it was."},
    }
    assert answers(own["de"]) == {"Ort": {"Wo es ist."}, "Zeit": {"Wann es war."}}
    assert everywhere["de"].corpus == own["fr"].corpus
    assert len(everywhere["de"].corpus) == 7
    assert set(mixed(languages=["de", "en"])["de"].corpus.values()) == {
        pair.positives[0] for pair in PAIRS[:-1] if pair.language != "fr"
    }


def test_a_source_without_parallel_groups_is_an_error() -> None:
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s: no query has an answer in another language$"):
        cross([pair("q", "a", "de", "one"), pair("r", "b", "en", "two")])


@settings(max_examples=40)
@given(pairs=held_out_pairs(), split=st.sampled_from(["validation", "test"]), own=st.booleans(), most=st.integers(1, 9))
def test_answers_are_of_the_same_key_and_nothing_is_of_another_split(
    pairs: list[Pair], split: str, own: bool, most: int
) -> None:
    relevant = "own" if own else "all"
    try:
        tasks = list(cross(pairs, split=split, max_queries=most, max_passages=most).values())
    except UserError:
        tasks = []
    if any(pair.split == split for pair in pairs):
        tasks += mixed(pairs, split=split, relevant=relevant, max_queries=most, max_passages=most).values()
    of_query: dict[str, set[tuple[str, str]]] = {}
    of_passage: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for each in pairs:
        if each.split == split:
            of_query.setdefault(shown_id(each.query_id), set()).add((each.task, each.group))
            for text in each.positives:
                key = shown_id(content_id(text)), each.language
                of_passage.setdefault(key, set()).add((each.task, each.group))
    for task in tasks:
        assert {*task.queries.values(), *task.corpus.values()} <= texts_of(pairs, split)
        assert task.queries.keys() == task.qrels.keys()
        assert 0 < len(task.queries) <= most
        for query, judged in task.qrels.items():
            assert judged
            assert judged.keys() <= task.corpus.keys()
            for passage in judged:
                language = task.corpus[passage].split()[0]
                assert of_query[query] & of_passage[passage, language]
                if task.document_language != MIXED:
                    assert language == task.document_language != task.query_language
                elif own:
                    assert language == task.query_language


@settings(max_examples=20)
@given(pairs=held_out_pairs(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_changes_nothing(pairs: list[Pair], order: Any) -> None:
    shuffled = pairs.copy()
    order.shuffle(shuffled)
    assert mixed(pairs, max_queries=3, max_passages=8) == mixed(shuffled, max_queries=3, max_passages=8)


CORPUS = [
    {"_id": "de1", "text": "Tee", "lang": "de", "subset": "de", "group": "tea"},
    {"_id": "en1", "text": "tea", "lang": "en", "subset": "en", "group": "tea"},
    {"_id": "en2", "text": "tea, too", "lang": "en", "subset": "en", "group": "tea"},
    {"_id": "de2", "text": "Kaffee", "lang": "de", "subset": "de", "group": "coffee"},
    {"_id": "en3", "text": "no group", "lang": "en", "subset": "en"},
]
QUERIES = [
    {"_id": "qde", "text": "Trank", "lang": "de", "subset": "de"},
    {"_id": "qen", "text": "drink", "lang": "en", "subset": "en"},
    {"_id": "alone", "text": "wach", "lang": "de", "subset": "de"},
]
QRELS = "qde\tde1\t2\nqen\ten1\t1\nalone\tde2\t1\n"


def test_documents_of_one_group_answer_in_every_language(tmp_path: Path) -> None:
    german, english = cross_lingual_tasks_from_folder(beir(tmp_path, CORPUS, QUERIES, QRELS), "s")
    assert (german.query_language, german.document_language) == ("de", "en")
    assert german.qrels == {"qde": {"en1": 2, "en2": 2}}
    assert set(german.corpus) == {"en1", "en2", "en3"}
    assert english.qrels == {"qen": {"de1": 1}}
    assert set(english.corpus) == {"de1", "de2"}
    assert (german.groups["qde"], english.groups["qen"]) == ("tea", "tea")
    german, english = mixed_tasks_from_folder(tmp_path, "s")
    assert {query: german.groups[query] for query in german.queries} == {"qde": "tea", "alone": "coffee"}
    assert german.qrels == {"qde": {"de1": 2, "en1": 2, "en2": 2}, "alone": {"de2": 1}}
    # The other English document of the group is not judged to answer in English.
    assert english.qrels == {"qen": {"en1": 1, "de1": 1}}
    assert set(german.corpus) == {"de1", "de2", "en1", "en2", "en3"}
    own, _ = mixed_tasks_from_folder(tmp_path, "s", relevant="own")
    assert own.qrels == {"qde": {"de1": 2}, "alone": {"de2": 1}}
    (first,) = mixed_tasks_from_folder(tmp_path, "s", languages=["de"], max_queries=1)
    assert first.qrels == {"qde": {"de1": 2}}


def test_judgements_across_languages_leave_nothing_to_the_groups(tmp_path: Path) -> None:
    queries = [{"_id": "qde", "text": "Trank", "lang": "de"}, {"_id": "qen", "text": "drink", "lang": "en"}]
    qrels = "qde\tde1\t1\nqde\ten2\t1\nqen\ten1\t1\n"
    (task,) = cross_lingual_tasks_from_folder(beir(tmp_path, CORPUS, queries, qrels), "s")
    assert task.qrels == {"qde": {"en2": 1}}


def test_a_folder_without_groups_is_an_error(tmp_path: Path) -> None:
    corpus = [{key: value for key, value in row.items() if key != "group"} for row in CORPUS]
    with pytest.raises(UserError, match=r"^folders=.*expected documents of several languages"):
        cross_lingual_tasks_from_folder(beir(tmp_path, corpus, QUERIES, QRELS), "s")


def test_a_folders_tasks_never_have_the_names_of_tasks_made_of_pairs(tmp_path: Path) -> None:
    """They would count as trained on where those are (trained_under)."""
    folder = beir(tmp_path / "public", CORPUS, QUERIES, QRELS)
    for make in (cross_lingual_tasks_from_folder, mixed_tasks_from_folder):
        assert {task.task for task in make(folder, "s")} == {"public"}
