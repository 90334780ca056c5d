"""Retrieval tasks from BEIR folders, and pairs of sentences."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.beir_folders import beir

from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import folder_fingerprint
from retrofit.evaluation.tasks_from_folder import similarity_tasks, tasks_from_beir

CORPUS = [{"_id": "d1", "title": "Tee", "text": "お茶"}, {"_id": "d2", "text": "קפה"}, {"_id": "d3", "text": "milk"}]
QUERIES = [{"_id": "q1", "text": "tea"}, {"_id": "q2", "text": "coffee"}, {"_id": "q3", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\nq2\td3\t1\n"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("header", [True, False])
def test_a_beir_folder(tmp_path: Path, zipped: bool, header: bool) -> None:
    qrels = QRELS if header else QRELS.split("\n", 1)[1]
    (task,) = tasks_from_beir(beir(tmp_path / "drinks", CORPUS, QUERIES, qrels, zipped=zipped), "suite")
    assert (task.suite, task.task, task.query_language, task.document_language) == (
        "suite", "drinks", "unknown", "unknown",
    )  # fmt: skip
    assert task.corpus == {"d1": "Tee お茶", "d2": "קפה", "d3": "milk"}
    assert task.queries == {"q1": "tea", "q2": "coffee"}
    assert task.qrels == {"q1": {"d1": 2}, "q2": {"d2": 1, "d3": 1}}
    assert task.groups == {"q1": "d1", "q2": "d2"}


def test_max_queries_draws_from_all_of_the_folder_and_fewer_lie_inside_more(tmp_path: Path) -> None:
    queries = [{"_id": f"q{number}", "text": f"question {number}"} for number in range(200)]
    # Ten questions to a paragraph, one paragraph after the other, as question answering has them.
    corpus = [{"_id": f"d{number}", "text": f"paragraph {number}"} for number in range(20)]
    qrels = "".join(f"q{number}\td{number // 10}\t1\n" for number in range(200))
    folder = beir(tmp_path, corpus, queries, qrels)
    (whole,), (drawn,), (fewer,) = (tasks_from_beir(folder, "suite", most) for most in (None, 40, 10))
    assert len(drawn.queries) == 40
    assert drawn.queries.keys() == drawn.qrels.keys()
    assert drawn.queries.items() <= whole.queries.items()
    assert fewer.queries.items() <= drawn.queries.items()
    assert len({passage for judged in drawn.qrels.values() for passage in judged}) > 12
    assert drawn.corpus == whole.corpus


def test_the_draw_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    queries = [{"_id": f"q{number}", "text": f"question {number}"} for number in range(30)]
    qrels = [f"q{number}\td{number % 3 + 1}\t1\n" for number in range(30)]
    (one,) = tasks_from_beir(beir(tmp_path / "a" / "set", CORPUS, queries, "".join(qrels)), "suite", max_queries=7)
    turned = beir(tmp_path / "b" / "set", CORPUS, queries[::-1], "".join(qrels[::-1]))
    (other,) = tasks_from_beir(turned, "suite", max_queries=7)
    assert list(one.qrels.items()) == list(other.qrels.items())


def test_subsets_are_searched_apart(tmp_path: Path) -> None:
    corpus = [
        {"_id": "d1", "text": "Tee", "lang": "de", "subset": "de"},
        {"_id": "d2", "text": "tea", "lang": "en", "subset": "en"},
    ]
    queries = [
        {"_id": "q1", "text": "Trank", "lang": "de", "subset": "de"},
        {"_id": "q2", "text": "drink", "lang": "en", "subset": "en"},
    ]
    # q1's judgement of an English passage is outside its pool.
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t1\nq2\td2\t1\n"
    german, english = tasks_from_beir(beir(tmp_path, corpus, queries, qrels), "suite")
    assert german.query_language == german.document_language == "de"
    assert german.corpus == {"d1": "Tee"}
    assert german.qrels == {"q1": {"d1": 1}}
    assert english.corpus == {"d2": "tea"}
    assert english.qrels == {"q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "expected"),
    [
        ([CORPUS[0], "{"], QUERIES, QRELS, "corpus.jsonl, row 2: broken JSON"),
        ([CORPUS[0], [1, 2]], QUERIES, QRELS, "corpus.jsonl, row 2: not an object"),
        ([CORPUS[0], "null"], QUERIES, QRELS, "corpus.jsonl, row 2: not an object"),
        (CORPUS, [QUERIES[0], {"_id": "q2"}], QRELS, "queries.jsonl, row 2, field text: missing field"),
        (CORPUS, [QUERIES[0], {"_id": "q2", "text": None}], QRELS, "queries.jsonl, row 2, field text: null field"),
        (CORPUS, [QUERIES[0], {"_id": "q2", "text": 5}], QRELS, "queries.jsonl, row 2, field text: not a text"),
        (CORPUS, QUERIES, QRELS + "q1\td9\t1\n", "test.tsv, row 6: unknown passage (d9)"),
        (CORPUS, QUERIES, QRELS + "q9\td1\t1\n", "test.tsv, row 6: unknown query (q9)"),
        (CORPUS, QUERIES, "q1\td1\n", "test.tsv, row 1: wrong number of fields (2)"),
        (CORPUS, QUERIES, QRELS + "q1\td1\t0.5\n", "test.tsv, row 6, field score: not a score (0.5)"),
        (CORPUS, QUERIES, QRELS + "q1\td1\t\n", "test.tsv, row 6, field score: not a score"),
        (CORPUS, QUERIES, QRELS + "q1\td1\t²\n", "test.tsv, row 6, field score: not a score (²)"),
        (CORPUS, QUERIES, QRELS + "q1\td1\t--1\n", "test.tsv, row 6, field score: not a score (--1)"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, corpus: list[Any], queries: list[Any], qrels: str, expected: str) -> None:
    folder = beir(tmp_path, corpus, queries, qrels)
    with pytest.raises(UserError) as caught:
        tasks_from_beir(folder, "suite")
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert expected in message
    assert "\n" not in message


def test_the_title_of_a_document_may_be_missing_but_not_be_a_number(tmp_path: Path) -> None:
    folder = beir(tmp_path, [{"_id": "d1", "title": 3, "text": "x"}, *CORPUS[1:]], QUERIES, QRELS)
    with pytest.raises(UserError, match=r"corpus\.jsonl, row 1"):
        tasks_from_beir(folder, "suite")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = beir(tmp_path, CORPUS, QUERIES, QRELS)
    (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        tasks_from_beir(folder, "suite")
    message = str(caught.value)
    assert message.startswith(f"folders={folder}: ")
    assert name in message.split("expected", 1)[1]
    assert "\n" not in message


def test_a_folder_without_a_relevant_passage_has_no_task(tmp_path: Path) -> None:
    assert tasks_from_beir(beir(tmp_path, CORPUS, QUERIES, "q1\td1\t0\n"), "suite") == []


def test_the_fingerprint_of_a_folder_is_that_of_its_contents(tmp_path: Path) -> None:
    first = folder_fingerprint(beir(tmp_path / "a", CORPUS, QUERIES, QRELS))
    assert folder_fingerprint(beir(tmp_path / "b", CORPUS, QUERIES, QRELS)) == first
    assert folder_fingerprint(beir(tmp_path / "c", CORPUS, QUERIES[:2], QRELS)) != first
    assert folder_fingerprint(beir(tmp_path / "d", CORPUS, QUERIES, QRELS + "q3\td1\t1\n")) != first
    (tmp_path / "a" / "SOURCE.md").write_text("where it is from")
    assert folder_fingerprint(tmp_path / "a") == first


def test_the_identity_of_a_folder_is_of_all_that_is_read_of_it(tmp_path: Path) -> None:
    beir(tmp_path / "set" / "below", CORPUS, QUERIES, QRELS)
    first = folder_fingerprint(tmp_path / "set")
    before = tasks_from_beir(tmp_path / "set", "suite")
    with (tmp_path / "set" / "below" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "more", "text": "Wasser"}\n')
    assert tasks_from_beir(tmp_path / "set", "suite") != before
    assert folder_fingerprint(tmp_path / "set") != first


def test_queries_of_every_language_are_a_task_of_their_own(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "text": "tea", "lang": "en"}, {"_id": "d2", "text": "Kaffee", "lang": "de"}]
    queries = [
        {"_id": "q1", "text": "Trank", "lang": "de"},
        {"_id": "q2", "text": "drink", "lang": "en"},
        {"_id": "q3", "text": "Getränk", "lang": "de"},
    ]
    folder = beir(tmp_path, corpus, queries, "q1\td1\t1\nq2\td1\t1\nq3\td2\t1\n")
    german, english = tasks_from_beir(folder, "suite")
    assert (german.query_language, german.document_language) == ("de", "mixed")
    assert german.queries == {"q1": "Trank", "q3": "Getränk"}
    assert english.queries == {"q2": "drink"}
    assert german.corpus == english.corpus == {"d1": "tea", "d2": "Kaffee"}
    assert tasks_from_beir(folder, "suite", languages=["en", "fr"]) == [english]
    with pytest.raises(UserError, match=r"^folders=.*languages fr not in it; it has de, en$"):
        tasks_from_beir(folder, "suite", languages=["fr"])


def test_subsets_of_one_language_have_names_of_their_own(tmp_path: Path) -> None:
    corpus = [{"_id": f"d{part}", "text": part, "lang": "en", "subset": part} for part in ("law", "news")]
    queries = [{"_id": f"q{part}", "text": part, "lang": "en", "subset": part} for part in ("law", "news")]
    tasks = tasks_from_beir(beir(tmp_path / "set", corpus, queries, "qlaw\tdlaw\t1\nqnews\tdnews\t1\n"), "suite")
    assert [(task.task, list(task.corpus)) for task in tasks] == [("set/law", ["dlaw"]), ("set/news", ["dnews"])]


def test_long_documents_are_those_of_the_queries_all_of_whose_answers_are_long(tmp_path: Path) -> None:
    corpus = [*CORPUS, {"_id": "long", "text": "tea " * 20}]
    folder = beir(tmp_path, corpus, QUERIES, "q1\tlong\t1\nq2\tlong\t1\nq2\td2\t1\nq3\td2\t1\n")
    (task,) = tasks_from_beir(folder, "suite", min_characters=50)
    assert task.queries == {"q1": "tea"}
    assert len(task.corpus) == 4
    with pytest.raises(UserError, match=r"min_characters=500"):
        tasks_from_beir(folder, "suite", min_characters=500)


@pytest.mark.parametrize("most", [1, 3])
def test_a_smaller_corpus_keeps_every_answer_and_others_by_identifier(tmp_path: Path, most: int) -> None:
    corpus = [*CORPUS, *({"_id": f"other{number}", "text": f"filler {number}"} for number in range(5))]
    folder = beir(tmp_path, corpus, QUERIES, "q1\td2\t1\nq2\tother4\t1\n")
    (task,) = tasks_from_beir(folder, "suite", max_passages=most)
    assert {"d2", "other4"} <= set(task.corpus)
    assert len(task.corpus) == max(2, most)
    assert task.qrels == {"q1": {"d2": 1}, "q2": {"other4": 1}}
    whole = tasks_from_beir(folder, "suite")[0].corpus
    assert [name for name in sorted(whole) if name not in ("d2", "other4")][: max(0, most - 2)] == sorted(
        set(task.corpus) - {"d2", "other4"}
    )


PAIRS = [
    {"_id": "1", "lang": "de", "split": "test", "sentence1": "a", "sentence2": "b", "score": 5},
    {"_id": "1", "lang": "en", "split": "test", "sentence1": "c", "sentence2": "d", "score": 0.5},
    {"_id": "2", "lang": "de", "split": "dev", "sentence1": "e", "sentence2": "f", "score": 3},
    {"_id": "3", "lang": "de", "split": "test", "sentence1": "a", "sentence2": "h", "score": 1},
]


def sts(folder: Path, rows: list[Any], *, zipped: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if zipped:
        (folder / "sts.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "sts.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_pairs_of_sentences_of_the_test_split(tmp_path: Path, zipped: bool) -> None:
    folder = sts(tmp_path / "alike", PAIRS, zipped=zipped)
    german, english = similarity_tasks(folder, "suite")
    assert (german.suite, german.task, german.query_language, german.document_language) == (
        "suite", "alike", "de", "de",
    )  # fmt: skip
    assert list(zip(german.first, german.second, german.scores, strict=True)) == [("a", "h", 1.0), ("a", "b", 5.0)]
    assert english.scores == (0.5,)
    (alone,) = similarity_tasks(folder, "suite", ["de"], max_pairs=1)
    assert alone.second == ("h",)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"score": "5"}, "row 5, field score: not a number (5), expected a number"),
        ({"score": True}, "row 5, field score: not a number"),
        ({"score": math.nan}, "row 5, field score: not a number"),
        ({"score": -math.inf}, "row 5, field score: not a number"),
        ({"sentence2": "a \ud83d"}, "row 5, field sentence2: lone surrogate"),
        ({"sentence2": None}, "row 5, field sentence2: null field"),
        ({"sentence1": 7}, "row 5, field sentence1: not a text"),
        ({"split": "best"}, "row 5, field split: unknown split (best)"),
    ],
)
def test_bad_pairs_of_sentences_are_named(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    folder = sts(tmp_path, [*PAIRS, PAIRS[0] | row])
    with pytest.raises(UserError) as caught:
        similarity_tasks(folder, "suite")
    assert str(caught.value).startswith(f"{folder}/sts.jsonl, {expected}")


def test_pairs_of_sentences_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "SOURCE.md").write_text("none", encoding="utf-8")
    with pytest.raises(UserError, match=r"expected one$"):
        similarity_tasks(tmp_path, "suite")
    with pytest.raises(UserError, match=r"no pair of the test split$"):
        similarity_tasks(sts(tmp_path, PAIRS[2:3]), "suite")
