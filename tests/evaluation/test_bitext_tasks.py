"""Bitext tasks from pairs and from folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.beir_folders import beir
from tests.evaluation.held_out_pairs import held_out_pairs, source_of, texts_of

from retrofit.data.records import Pair
from retrofit.errors import UserError
from retrofit.evaluation.bitext_tasks import bitext_tasks_from_folder, bitext_tasks_from_pairs, one_to_one
from retrofit.evaluation.tasks import BitextTask


def bitext(pairs: list[Pair], **options: Any) -> list[BitextTask]:
    arguments = {"suite": "s", "split": "test", "tasks": None, "languages": None, "max_sentences": None, **options}
    return bitext_tasks_from_pairs(source_of(pairs), **arguments)


def test_no_sentence_has_two_translations_in_the_pool() -> None:
    known = [("a", ("1", "2")), ("b", ("2",)), ("c", ("3",)), ("a", ("4",)), ("d", ("5",))]
    assert one_to_one(known, None) == (["a", "c", "d"], ["1", "3", "5"])
    assert one_to_one(known, 2) == (["a", "c"], ["1", "3"])


def test_every_two_languages_are_a_task() -> None:
    pairs = [
        Pair("Tee", ("tea",), "bitext", "de", "en", "s", "h", "test"),
        Pair("Tee", ("tea",), "bitext", "de", "en", "s", "g", "test"),
        Pair("milk", ("Milch",), "bitext", "en", "de", "s", "g", "test"),
        Pair("one language", ("only",), "help", "en", "en", "s", "g", "test"),
    ]
    first, second = bitext(pairs)
    assert first == BitextTask("s", "bitext", "de", "en", ["Tee"], ["tea"], ["g"])
    assert (second.query_language, second.sentences, second.translations) == ("en", ["milk"], ["Milch"])
    with pytest.raises(UserError, match=r"^evaluation\.suites\.s\.tasks: none of their pairs is in two languages"):
        bitext(pairs, tasks=["help"])


@settings(max_examples=40)
@given(
    pairs=held_out_pairs(bitext=True), most=st.one_of(st.none(), st.integers(1, 6)),
    order=st.randoms(use_true_random=False),
)  # fmt: skip
def test_sentences_and_translations_are_different_and_of_the_split(
    pairs: list[Pair], most: int | None, order: Any
) -> None:
    tasks = bitext(pairs, max_sentences=most)
    for task in tasks:
        assert 0 < len(task.sentences) == len(task.translations) <= (most or len(pairs))
        assert len(set(task.sentences)) == len(set(task.translations)) == len(task.sentences)
        assert {*task.sentences, *task.translations} <= texts_of(pairs, "test")
        answers = {
            pair.query: pair.positives
            for pair in pairs
            if (pair.split, pair.task, pair.language, pair.document_language)
            == ("test", task.task, task.query_language, task.document_language)
        }
        for sentence, translation in zip(task.sentences, task.translations, strict=True):
            assert set(answers[sentence]) & set(task.translations) == {translation}
    shuffled = pairs.copy()
    order.shuffle(shuffled)
    assert [task.sentences for task in bitext(shuffled, max_sentences=most)] == [task.sentences for task in tasks]


CORPUS = [{"_id": f"d{number}", "text": f"text {number}", "lang": "en"} for number in range(4)]
QUERIES = [{"_id": f"q{number}", "text": f"Text {number}", "lang": ("de", "fr")[number % 2]} for number in range(4)]
QRELS = "".join(f"q{number}\td{number}\t1\n" for number in range(4))


def test_every_language_of_a_folder_is_a_task(tmp_path: Path) -> None:
    grouped = [row | {"group": "both"} if row["_id"] == "d2" else row for row in CORPUS]
    folder = beir(tmp_path / "pairs", grouped, QUERIES, QRELS)
    german, french = bitext_tasks_from_folder(folder, "s")
    assert german == BitextTask("s", "pairs", "de", "en", ["Text 0", "Text 2"], ["text 0", "text 2"], ["d0", "both"])
    assert french.translations == ["text 3", "text 1"]
    (one,) = bitext_tasks_from_folder(folder, "s", languages=["fr"], max_queries=1)
    assert one.sentences == ["Text 3"]


def test_a_folder_in_one_language_is_no_bitext(tmp_path: Path) -> None:
    queries = [row | {"lang": "en"} for row in QUERIES]
    with pytest.raises(UserError, match=r"^folders=.*expected a bitext \(kind\)$"):
        bitext_tasks_from_folder(beir(tmp_path, CORPUS, queries, QRELS), "s")
