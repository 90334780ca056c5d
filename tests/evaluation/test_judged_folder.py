"""BEIR folders in memory: every field of every row, and which judgements count."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.beir_folders import beir

from retrofit.data.sources.beir import Text
from retrofit.errors import UserError
from retrofit.evaluation.judged_folder import JudgedFolder, draw_order, wanted

SUBSETS = st.sampled_from([None, "", "law", "news"])


def rows(prefix: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a table; the identifiers are different, some of them numbers."""
    optional = {
        "title": st.one_of(st.none(), st.text(max_size=4)),
        "lang": st.sampled_from([None, "", "de", "zh-Hans"]),
        "subset": SUBSETS,
        "group": st.sampled_from([None, "", "g1", 7]),
        "label": st.sampled_from([None, "", "tea", 3]),
    }
    row = st.fixed_dictionaries({"text": st.text(max_size=6)}, optional=optional)
    return st.lists(row, min_size=1, max_size=5).map(
        lambda found: [
            {"_id": place if place % 2 else f"{prefix} {place}"} | values for place, values in enumerate(found)
        ]
    )


def expected_text(row: dict[str, Any], *, titled: bool) -> Text:
    title = row.get("title") if titled else None
    named = {name: str(row[name]) if row.get(name) else None for name in ("lang", "group", "label")}
    text = f"{title} {row['text']}" if title and row["text"] else title or row["text"]
    return Text(str(row["_id"]), text, named["lang"], row.get("subset") or "", named["group"], named["label"])


@given(rows("d"), rows("q"), st.data(), st.booleans())
def test_what_a_folder_holds_is_read_as_it_stands(
    corpus: list[dict[str, Any]], queries: list[dict[str, Any]], data: st.DataObject, zipped: bool
) -> None:
    pairs = [(query, document) for query in queries for document in corpus]
    places = st.lists(st.integers(0, len(pairs) - 1), unique=True)
    judged = [(pairs[place], data.draw(st.integers(-1, 3))) for place in data.draw(places)]
    qrels = "".join(f"{query['_id']}\t{document['_id']}\t{grade}\n" for (query, document), grade in judged)
    expected: dict[str, dict[str, int]] = {}
    for (query, document), grade in judged:
        if grade > 0 and (query.get("subset") or "") in ("", document.get("subset") or ""):
            expected.setdefault(str(query["_id"]), {})[str(document["_id"])] = grade
    with tempfile.TemporaryDirectory() as root:
        folder = beir(Path(root) / "set", corpus, queries, qrels, zipped=zipped)
        if zipped:
            (folder / "qrels" / "test.tsv").unlink()
            (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(qrels.encode()))
        found = JudgedFolder.read(folder)
    assert list(found.documents.items()) == [(str(row["_id"]), expected_text(row, titled=True)) for row in corpus]
    assert list(found.queries.items()) == [(str(row["_id"]), expected_text(row, titled=False)) for row in queries]
    # The order says which queries are the first.
    assert list(found.qrels) == sorted(expected, key=draw_order)
    assert {query: list(grades.items()) for query, grades in found.qrels.items()} == {
        query: list(grades.items()) for query, grades in expected.items()
    }


CORPUS = [{"_id": "d1", "text": "Tee", "lang": "de", "subset": "x"}, {"_id": "d2", "text": "tea", "subset": "law"}]
QUERIES = [
    {"_id": "q1", "text": "one", "lang": "en"},
    {"_id": "q2", "text": "two"},
    {"_id": "q3", "text": "three", "lang": "en"},
    {"_id": "q4", "text": "not judged", "lang": "fi"},
]
QRELS = "q3\td1\t1\nq2\td2\t1\nq1\td1\t1\n"


def test_queries_are_drawn_by_language_whatever_the_order_of_the_judgements(tmp_path: Path) -> None:
    folder = JudgedFolder.read(beir(tmp_path / "set", CORPUS, QUERIES, QRELS))
    assert folder.queries_by_language() == {"en": ["q3", "q1"], "law": ["q2"]}
    assert list(folder.queries_by_language(["law", "en", "fi"]).items()) == [("en", ["q3", "q1"]), ("law", ["q2"])]
    with pytest.raises(UserError, match=r"^folders=.*set: languages fi not in it; it has en, law$"):
        folder.queries_by_language(["fi"])


def test_a_language_that_is_not_named_is_the_subset_or_unknown(tmp_path: Path) -> None:
    folder = JudgedFolder.read(beir(tmp_path, [*CORPUS, {"_id": "d3", "text": "x"}], QUERIES, QRELS))
    assert [folder.document_language(name) for name in ("d1", "d2", "d3")] == ["de", "law", "unknown"]
    assert [folder.query_language("q1", "law"), folder.query_language("q2", "law")] == ["en", "law"]
    assert folder.query_language("q2", "") == "unknown"


def test_the_name_of_a_folder_is_its_own_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beir(tmp_path / "drinks", CORPUS, QUERIES, QRELS)
    monkeypatch.chdir(tmp_path / "drinks")
    assert JudgedFolder.read(Path()).name == "drinks"


def test_wanted_languages_come_in_the_order_of_their_names() -> None:
    assert wanted(None, iter(["fi", "de", "en"]), Path()) == ["de", "en", "fi"]
    assert wanted(["fi", "sw", "de"], {"fi": 1, "en": 2, "de": 3}, Path()) == ["de", "fi"]


def test_a_bad_row_of_a_compressed_file_is_named_by_its_line(tmp_path: Path) -> None:
    folder = beir(tmp_path, [CORPUS[0], "", "{"], QUERIES, QRELS, zipped=True)
    with pytest.raises(UserError, match=rf"^{folder}/corpus\.jsonl\.gz, row 3: broken JSON[^\n]*$"):
        JudgedFolder.read(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "queries.jsonl.gz"])
def test_a_compressed_file_that_ends_too_early_is_one_line(tmp_path: Path, name: str) -> None:
    folder = beir(tmp_path, CORPUS, QUERIES, QRELS, zipped=True)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-9])
    with pytest.raises(UserError, match=rf"^{folder}/{name}, row \d: cannot be read on: [^\n]*$"):
        JudgedFolder.read(folder)


def test_a_table_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = beir(tmp_path, CORPUS, QUERIES, QRELS)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match=r"^folders=.*/corpus\.jsonl and .*/corpus\.jsonl\.gz; expected one BEIR"):
        JudgedFolder.read(folder)


def test_judgements_of_another_split_are_not_those_of_the_test(tmp_path: Path) -> None:
    folder = beir(tmp_path, CORPUS, QUERIES, QRELS)
    (folder / "qrels" / "dev.tsv").write_text("q4\td1\t1\n", encoding="utf-8")
    assert list(JudgedFolder.read(folder).qrels) == ["q3", "q2", "q1"]
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(UserError, match=r"^folders=.*expected corpus\.jsonl, queries\.jsonl and qrels/test\.tsv$"):
        JudgedFolder.read(folder)


def test_of_an_identifier_that_is_there_twice_the_first_row_is_used(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "text": "tea"}, {"_id": "d1", "text": "coffee"}]
    folder = JudgedFolder.read(beir(tmp_path, corpus, [{"_id": "q1", "text": "?"}], "q1\td1\t1\n"))
    assert folder.documents["d1"].text == "tea"


@pytest.mark.parametrize(
    ("corpus", "queries", "expected"),
    [
        (
            [*CORPUS, r'{"_id": "d3", "text": "half \ud83d"}'],
            QUERIES,
            "corpus.jsonl, row 3, field text: lone surrogate",
        ),
        (CORPUS, [*QUERIES, r'{"_id": "q\ud83d", "text": "whole"}'], "queries.jsonl, row 5, field _id: lone surrogate"),
    ],
)
def test_what_cannot_be_encoded_is_named(tmp_path: Path, corpus: list[Any], queries: list[Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        JudgedFolder.read(beir(tmp_path, corpus, queries, QRELS))
    assert expected in str(caught.value)
