import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from retrofit.data.sources.beir import read_documents, read_judgements, read_qrels, read_queries, stop
from retrofit.data.sources.files import find_files
from retrofit.data.sources.refusals import Reason, RefusedRowError, Row
from retrofit.data.sources.rows import read_jsonl
from retrofit.errors import UserError

DOCUMENTS = [
    {
        "_id": f"d{number}",
        "title": "Title" if number % 2 else "",
        "text": f"document {number}",
        "lang": "de",
        "group": str(number),
    }
    for number in range(60)
]
QUERIES = [{"_id": f"q{number}", "text": f"query {number}", "lang": "en"} for number in range(40)]
QRELS = {
    "train": [(f"q{number}", f"d{number}", "1") for number in range(32)],
    "test": [(f"q{number}", f"d{number}", "2") for number in range(32, 38)]
    + [("q37", "d50", "1"), ("q37", "d51", "0"), ("q38", "d50", "-1")],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "qrels").mkdir(parents=True)
    corpus = "".join(json.dumps(document) + "\n" for document in DOCUMENTS)
    (root / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.encode()))
    (root / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in QUERIES))
    (root / "SOURCE.md").write_text("about")
    for split, rows in QRELS.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(row) for row in rows)]
        (root / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_judgements_become_pairs_of_their_split(folder: Path, build: Any) -> None:
    source = build("folder", path=str(folder), task="shop")
    rows = {row["query"]: row for row in source.pairs.to_pylist()}
    assert set(rows) == {f"query {number}" for number in range(38)}
    assert rows["query 1"]["positives"] == ["Title document 1"]
    assert rows["query 37"]["positives"] == ["Title document 37", "document 50"]
    assert {name: rows["query 1"][name] for name in ("task", "language", "document_language", "group")} == {
        "task": "shop",
        "language": "en",
        "document_language": "de",
        "group": "1",
    }
    splits = {number: rows[f"query {number}"]["split"] for number in range(38)}
    assert {splits[number] for number in range(32, 38)} == {"test"}
    assert {splits[number] for number in range(32)} == {"train", "validation"}
    assert source.report["rows"] == 60 + 40 + 32 + 9
    assert source.report["unused"] == {"judgements of score 0 or less": 2, "queries without a positive judgement": 2}


def test_a_document_that_equals_the_query_costs_its_own_judgement_only(folder: Path, build: Any) -> None:
    with (folder / "corpus.jsonl.gz").open("ab") as corpus:
        corpus.write(gzip.compress(json.dumps({"_id": "same", "text": "query 39", "lang": "de"}).encode() + b"\n"))
    with (folder / "qrels" / "test.tsv").open("a") as qrels:
        qrels.write("q39\td1\t1\nq39\tsame\t1\nq39\td2\t1\n")
    source = build("folder", path=str(folder), max_refused=0.01)
    rows = {row["query"]: row for row in source.pairs.to_pylist()}
    assert rows["query 39"]["positives"] == ["Title document 1", "document 2"]
    assert source.report["refused"] == {str(Reason.QUERY_IS_POSITIVE): 1}
    (refused,) = map(json.loads, (source.folder / "refused.jsonl").read_text().splitlines())
    assert (refused["file"], refused["row"]) == (f"{folder}/qrels/test.tsv", 12)


def test_documents_beside_rows_that_train_can_be_searched_without_queries(folder: Path, build: Any) -> None:
    for name in ("queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        (folder / name).unlink()
    (folder / "train.jsonl").write_text('{"query": "who", "positive": "someone"}\n')
    source = build("folder", path=str(folder), language="en")
    assert source.pairs["query"].to_pylist() == ["who"]
    assert source.passages is not None
    assert len(source.passages) == 60


def test_a_query_is_in_its_own_group_before_that_of_its_document(folder: Path, build: Any) -> None:
    queries = [{**query, **({"group": "of queries"} if number < 20 else {})} for number, query in enumerate(QUERIES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    rows = {row["query"]: row for row in build("folder", path=str(folder)).pairs.to_pylist()}
    assert {rows[f"query {number}"]["group"] for number in range(20)} == {"of queries"}
    assert len({rows[f"query {number}"]["split"] for number in range(20)}) == 1
    assert rows["query 25"]["group"] == "25"


def test_all_documents_can_be_searched_unless_they_are_left_out(folder: Path, build: Any) -> None:
    source = build("folder", path=str(folder))
    assert source.passages is not None
    assert source.passages["passage"].to_pylist()[:2] == ["document 0", "Title document 1"]
    assert len(source.passages) == 60
    assert set(source.passages["language"].to_pylist()) == {"de"}
    judged = build("folder", path=str(folder), keep_corpus=False)
    assert judged.passages is None
    assert len(judged.pairs) == len(source.pairs)
    assert not [path for path in source.folder.iterdir() if path.name in ("text.arrow", "query.arrow", "spool.arrow")]


def test_train_rows_join_the_judgements(folder: Path, build: Any) -> None:
    rows = [{"query": f"more {number}", "positive": f"other {number}", "lang": "fr"} for number in range(60)]
    rows.append({"query": "leaking", "positive": "document 32", "lang": "fr"})  # it answers a test query
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels" / "train.tsv").unlink()
    source = build("folder", path=str(folder))
    pairs = {row["query"]: row for row in source.pairs.to_pylist()}
    assert pairs["more 3"]["language"] == "fr"
    assert {pairs[query]["split"] for query in pairs if query.startswith("more")} == {"train", "validation"}
    assert "leaking" not in pairs
    assert source.report["leaks"] == {"train: no positive left": 1, "train: positive also in test": 1}


@pytest.mark.parametrize(
    ("file", "line", "reason", "field"),
    [
        ("corpus.jsonl.gz", '{"_id": "d0", "text": "again"}', Reason.DUPLICATE_IDENTIFIER, "_id"),
        ("corpus.jsonl.gz", '{"_id": "new", "title": "no text"}', Reason.MISSING_FIELD, "text"),
        ("corpus.jsonl.gz", '{"_id": "new", "text": null}', Reason.NULL_FIELD, "text"),
        ("corpus.jsonl.gz", '{"_id": "new", "text": ["a"]}', Reason.NOT_A_TEXT, "text"),
        ("corpus.jsonl.gz", '{"_id": 1.5, "text": "x"}', Reason.NOT_AN_IDENTIFIER, "_id"),
        ("corpus.jsonl.gz", '{"_id": "new", "text": "x", "lang": "?"}', Reason.MALFORMED_LANGUAGE, "lang"),
        ("corpus.jsonl.gz", '{"_id": "new", "text": "x"', Reason.BROKEN_JSON, ""),
        ("queries.jsonl", '{"_id": "q0", "text": "again"}', Reason.DUPLICATE_IDENTIFIER, "_id"),
        ("queries.jsonl", '{"_id": "new", "text": "  "}', Reason.BLANK, "query"),
        ("qrels/test.tsv", "q99\td1\t1", Reason.UNKNOWN_QUERY, "query-id"),
        ("qrels/test.tsv", "q39\td99\t1", Reason.UNKNOWN_PASSAGE, "corpus-id"),
        ("qrels/test.tsv", "q39\td1\t0.5", Reason.NOT_A_SCORE, "score"),
        ("qrels/test.tsv", "q39\td1\t" + "9" * 5000, Reason.NOT_A_SCORE, "score"),
        ("qrels/test.tsv", "q39\udce9\td1\t1", Reason.INVALID_UTF8, ""),
        ("corpus.jsonl.gz", r'{"_id": "n\ud83d", "text": "x"}', Reason.SURROGATE, "_id"),
        ("corpus.jsonl.gz", r'{"_id": "new", "text": "x", "group": "\ud83d"}', Reason.SURROGATE, "group"),
        ("corpus.jsonl.gz", r'{"_id": "new", "text": "x", "subset": "\ud83d"}', Reason.SURROGATE, "subset"),
        ("queries.jsonl", r'{"_id": "new", "text": "x", "lang": "\ud83d"}', Reason.SURROGATE, "lang"),
        ("queries.jsonl", r'{"_id": "new", "text": "x\ud83d"}', Reason.SURROGATE, "text"),
        ("qrels/test.tsv", "q39\td1", Reason.WRONG_FIELDS, ""),
        ("qrels/test.tsv", "q39 0 d1 1", Reason.WRONG_FIELDS, ""),
        ("qrels/test.tsv", "q32\td32\t1", Reason.DUPLICATE_ROW, ""),
    ],
)
def test_a_bad_row_is_refused_with_its_place(
    file: str, line: str, reason: Reason, field: str, folder: Path, build: Any
) -> None:
    path = folder / file
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    longer = content + line.encode(errors="surrogateescape") + b"\n"
    path.write_bytes(gzip.compress(longer) if path.suffix == ".gz" else longer)
    source = build("folder", path=str(folder), language="en", max_refused=0.01)
    (refused,) = map(json.loads, (source.folder / "refused.jsonl").read_text().splitlines())
    assert refused["file"] == f"{folder}/{file}"
    assert (refused["row"], refused["field"], refused["reason"]) == (longer.count(b"\n"), field, str(reason))
    assert len(source.pairs) == 38


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf"), 0.5, True, None, [1]])
def test_a_score_that_is_no_whole_number_is_refused(score: Any) -> None:
    values = {"query-id": "q", "corpus-id": "d", "score": score}
    found: list[Reason] = []
    assert not list(read_judgements([Row("qrels", 1, values)], lambda _, error: found.append(error.reason)))
    assert found == [Reason.NOT_A_SCORE]


@pytest.mark.parametrize("score", [1, 1.0, "1", 10**400])
def test_a_score_may_be_any_whole_number(score: Any) -> None:
    values = {"query-id": "q", "corpus-id": "d", "score": score}
    ((_, judgement),) = read_judgements([Row("qrels", 1, values)], stop)
    assert judgement.score == int(score)


def test_a_folder_that_lacks_a_table_is_one_clear_line(folder: Path, build: Any) -> None:
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds corpus, qrels/test, qrels/train; expected corpus.jsonl, queries.jsonl"):
        build("folder", path=str(folder))


def test_queries_without_documents_are_one_clear_line(folder: Path, build: Any) -> None:
    for name in ("corpus.jsonl.gz", "qrels/train.tsv", "qrels/test.tsv"):
        (folder / name).unlink()
    (folder / "train.jsonl").write_text('{"query": "who", "positive": "someone"}\n')
    with pytest.raises(UserError, match=r"holds queries\.jsonl and no corpus\.jsonl; expected both"):
        build("folder", path=str(folder), format="beir")


def test_qrels_of_no_split_are_one_clear_line(folder: Path, build: Any) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "golden.tsv")
    with pytest.raises(UserError, match=r"no split is called golden; expected train.tsv, dev.tsv or test.tsv"):
        build("folder", path=str(folder))


def test_documents_without_a_language_need_a_constant(folder: Path, build: Any) -> None:
    (folder / "queries.jsonl").write_text("".join(json.dumps({**q, "lang": None}) + "\n" for q in QUERIES))
    with pytest.raises(UserError, match=r"field lang: missing field .data_source.language is null too"):
        build("folder", path=str(folder))
    assert set(build("folder", path=str(folder), language="it").pairs["language"].to_pylist()) == {"it"}


def test_the_readers_give_rows_their_numbers_for_others_to_use(folder: Path) -> None:
    (corpus,), (queries,), (qrels,) = (
        find_files(str(folder / name)) for name in ("corpus.jsonl.gz", "queries.jsonl", "qrels/test.tsv")
    )
    row, document = list(read_documents(read_jsonl(corpus), stop))[1]
    assert (row.number, document.identifier, document.text, document.language) == (2, "d1", "Title document 1", "de")
    assert next(read_queries(read_jsonl(queries), stop))[1].text == "query 0"
    row, judgement = next(read_judgements(read_qrels(qrels), stop))
    assert (row.number, judgement.query, judgement.passage, judgement.score) == (2, "q32", "d32", 2)
    bad = [Row("corpus.jsonl", 7, {"_id": "d"}), Row("corpus.jsonl", 8, problem=RefusedRowError(Reason.BROKEN_JSON))]
    for row in bad:
        with pytest.raises(UserError, match=f"corpus.jsonl, row {row.number}"):
            list(read_documents([row], stop))
