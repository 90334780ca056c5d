import csv
import gzip
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrofit.data.storage import PairSource
from retrofit.errors import UserError

ROWS = [{"query": f"Frage {number}", "positive": f"Antwort {number}, mit „Zeichen“"} for number in range(40)]
ANSWERS = {row["query"]: [row["positive"]] for row in ROWS}


def jsonl() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["query", "positive"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


FILES = {
    "rows.jsonl": jsonl(),
    "rows.ndjson.gz": gzip.compress(jsonl()),
    "rows.csv": b"\xef\xbb\xbf" + table(","),
    "rows.csv.gz": gzip.compress(table(",")),
    "rows.tsv": table("\t"),
    "rows.parquet": parquet(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_pairs(name: str, tmp_path: Path, build: Any, texts: Any) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    source = build("folder", path=str(tmp_path / name), language="de")
    assert texts(source) == ANSWERS
    assert source.report["rows"] == len(ROWS)
    assert source.report["refused"] == {}
    row = source.pairs.to_pylist()[0]
    assert {name: row[name] for name in ("task", "language", "document_language", "source")} == {
        "task": "retrieval",
        "language": "de",
        "document_language": "de",
        "source": "folder",
    }
    assert source.passages is None
    assert sorted(path.name for path in source.folder.iterdir()) == ["manifest.json", "pairs.arrow", "report.json"]


def test_a_url_and_a_pattern_are_read_like_a_file(tmp_path: Path, build: Any, texts: Any) -> None:
    with fsspec.open("memory://shop/rows.jsonl.gz", "wb") as file:
        file.write(gzip.compress(jsonl()))
    (tmp_path / "a.jsonl").write_bytes(jsonl()[: len(jsonl()) // 2].rpartition(b"\n")[0])
    (tmp_path / "b.jsonl").write_bytes(jsonl())
    assert texts(build("folder", path="memory://shop/rows.jsonl.gz", language="de")) == ANSWERS
    of_both = build("folder", path=str(tmp_path / "*.jsonl"), language="de")
    assert texts(of_both) == ANSWERS
    assert of_both.report["refused"] == {"duplicate row": of_both.report["rows"] - len(ROWS)}


def test_a_name_that_is_not_utf_8_is_shown_as_far_as_it_can_be(tmp_path: Path, build: Any, texts: Any) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / os.fsdecode(b"daten-\xfc.jsonl")).write_bytes(jsonl() + b"{}\n")
    source = build("folder", path=str(folder), language="de", max_refused=0.1)
    assert texts(source) == ANSWERS
    assert json.loads((source.folder / "refused.jsonl").read_text())["file"] == f"{folder}/daten-\ufffd.jsonl"


@pytest.mark.parametrize("name", ["x[1].jsonl", "what?.jsonl", "all*.jsonl"])
def test_the_name_of_a_file_that_exists_is_no_pattern(name: str, tmp_path: Path, build: Any, texts: Any) -> None:
    (tmp_path / "x[2]").mkdir()
    for path in (tmp_path / name, tmp_path / "x[2]" / name, tmp_path / "x[2]" / "all of it.md"):
        path.write_bytes(jsonl())
    assert texts(build("folder", path=str(tmp_path / name), language="de")) == ANSWERS
    assert texts(build("folder", path=str(tmp_path / "x[2]"), language="de")) == ANSWERS


def test_a_folder_may_hold_a_readme_but_not_two_formats(tmp_path: Path, build: Any, texts: Any) -> None:
    (tmp_path / "data" / "part").mkdir(parents=True)
    (tmp_path / "data" / "README.md").write_text("hello")
    (tmp_path / "data" / "part" / "rows.jsonl").write_bytes(jsonl())
    assert texts(build("folder", path=str(tmp_path / "data"), language="de")) == ANSWERS
    (tmp_path / "data" / "rows.csv").write_bytes(table(","))
    with pytest.raises(UserError, match="holds csv and jsonl; expected files of one format"):
        build("folder", path=str(tmp_path / "data"), language="de")


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """A URL, and the body and the headers that stand there."""
    answer: dict[str, Any] = {"body": b"", "headers": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(answer["body"])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/rows.jsonl", answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("header", ["ETag", "Last-Modified", "Content-Length", None])
def test_a_url_is_read_again_when_what_stands_there_has_changed(
    header: str | None, served: tuple[str, dict[str, Any]], build: Any
) -> None:
    url, answer = served

    def built(positive: str, version: str) -> PairSource:
        body = json.dumps({"query": "q", "positive": positive}).encode() + b"\n"
        values = {"ETag": f'"{version}"', "Last-Modified": version, "Content-Length": str(len(body))}
        answer.update(body=body, headers={header: values[header]} if header else {})
        return build("folder", path=url, language="de")

    first = built("one", "Thu, 01 Jan 2026 00:00:00 GMT")
    assert built("one", "Thu, 01 Jan 2026 00:00:00 GMT").folder == first.folder
    changed = built("two", "Thu, 01 Jan 2026 00:00:01 GMT")
    assert changed.folder != first.folder
    assert changed.pairs["positives"].to_pylist() == [["two"]]


def test_the_same_content_is_built_once_and_another_anew(tmp_path: Path, build: Any) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_bytes(jsonl())
    first = build("folder", path=str(tmp_path / "one" / "rows.jsonl"), language="de")
    assert build("folder", path=str(tmp_path / "two" / "rows.jsonl"), language="de").folder == first.folder
    (tmp_path / "two" / "rows.jsonl").write_bytes(jsonl() + b'{"query": "neu", "positive": "ja"}\n')
    assert build("folder", path=str(tmp_path / "two" / "rows.jsonl"), language="de").folder != first.folder
    assert build("folder", path=str(tmp_path / "one" / "rows.jsonl"), language="nl").folder != first.folder


def test_parallel_texts_answer_line_by_line(tmp_path: Path, build: Any, texts: Any) -> None:
    (tmp_path / "de.txt").write_text("".join(f"Satz {n}\n" for n in range(30)) + "Berlin\n")
    (tmp_path / "en.txt.gz").write_bytes(
        gzip.compress(("".join(f"sentence {n}\n" for n in range(30)) + "Berlin").encode())
    )
    source = build(
        "parallel",
        queries=str(tmp_path / "de.txt"),
        passages=str(tmp_path / "en.txt.gz"),
        language="de",
        document_language="en",
    )
    assert texts(source) == {**{f"Satz {n}": [f"sentence {n}"] for n in range(30)}, "Berlin": ["Berlin"]}
    row = source.pairs.to_pylist()[0]
    assert (row["task"], row["language"], row["document_language"]) == ("bitext", "de", "en")


@pytest.mark.parametrize(("content", "said"), [("", "no rows"), ("a\n", "none of 1 rows gives a pair")])
def test_parallel_texts_without_a_pair_name_their_keys(content: str, said: str, tmp_path: Path, build: Any) -> None:
    for name in ("de.txt", "en.txt"):
        (tmp_path / name).write_text(content)
    overrides = {"queries": str(tmp_path / "de.txt"), "passages": str(tmp_path / "en.txt"), "language": "de"}
    with pytest.raises(UserError, match=rf"{said}.*data_source.queries, data_source.passages"):
        build("parallel", **overrides, query_may_equal_positive=False, max_refused=1)


def test_a_line_too_many_has_no_counterpart(tmp_path: Path, build: Any) -> None:
    (tmp_path / "de.txt").write_text("".join(f"Satz {n}\n" for n in range(9)) + "\nübrig\n")
    (tmp_path / "en.txt").write_text("".join(f"sentence {n}\n" for n in range(10)))
    overrides = {"queries": str(tmp_path / "de.txt"), "passages": str(tmp_path / "en.txt"), "language": "de"}
    source = build("parallel", **overrides, max_refused=0.5)
    assert source.report["refused"] == {"empty text": 1, "no counterpart": 1}
    with pytest.raises(
        UserError, match=r"2 of 11 rows refused.*row 10, field query: empty text.*row 11: no counterpart"
    ):
        build("parallel", **overrides)


def test_columns_constants_and_codes(build: Any, write_lines: Any) -> None:
    path = write_lines(
        "miracl.jsonl",
        [
            {
                "question": {"text": f"query {number}"},
                "positive_passages": [{"title": "A", "text": f"one {number}"}, {"text": f"two {number}"}],
                "negative_passages": [{"title": "B", "text": f"other {number}"}] if number else [],
                "lang": "zh" if number % 2 else "en",
                "topic": number // 4,
            }
            for number in range(16)
        ],
    )
    source = build(
        "folder",
        path=str(path),
        columns={
            "query": "question.text",
            "positive": ["positive_passages.text"],
            "negative": ["negative_passages.title", "negative_passages.text"],
            "language": "lang",
            "group": "topic",
        },
        language_codes={"zh": "zh-Hans"},
        document_language="en",
        task="wikipedia",
    )
    rows = {row["query"]: row for row in source.pairs.to_pylist()}
    assert rows["query 3"]["positives"] == ["one 3", "two 3"]
    assert rows["query 3"]["negatives"] == ["B other 3"]
    assert rows["query 0"]["negatives"] == []
    assert {row["language"] for row in rows.values()} == {"en", "zh-Hans"}
    assert {row["document_language"] for row in rows.values()} == {"en"}
    assert {row["group"] for row in rows.values()} == {"0", "1", "2", "3"}
    assert len({(row["group"], row["split"]) for row in rows.values()}) == 4


def test_titles_that_some_positives_lack_are_joined_where_they_are(build: Any, write_lines: Any, texts: Any) -> None:
    rows = [
        {"query": "a", "title": None, "text": "x"},
        {"query": "b", "title": "T", "text": "y"},
        {"query": "c", "text": "z"},
    ]
    path = write_lines("rows.jsonl", rows)
    source = build("folder", path=str(path), columns__positive=["title", "text"], language="en")
    assert texts(source) == {"a": ["x"], "b": ["T y"], "c": ["z"]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"path": None}, "data_source.path=null: expected a file, a folder"),
        ({"path": "nowhere.jsonl"}, "data_source.path=nowhere.jsonl: no such file"),
        ({"path": "nonsense://x/y.jsonl"}, "data_source.path=nonsense://x/y.jsonl: cannot be read"),
        ({"format": "xml"}, "data_source.format=xml: expected auto or one of"),
        ({"columns": {"answer": "x"}}, "data_source.columns.answer: no such role; expected one of query, positive"),
        ({"columns": {"query": 3}}, "data_source.columns.query=3: expected null, a path or a list"),
        ({"columns": {"query": None}}, "data_source.columns.query=null: expected the field"),
        ({"columns": {"group": "topic"}}, "data_source.columns.group=topic: no row has this field"),
        ({"columns": {"negative": "bad.text"}}, "data_source.columns.negative=bad.text: no row has this field"),
        ({"language": None}, "data_source.language=null: expected a language for all rows"),
        ({"language": "Deutsch (DE)"}, "data_source.language=Deutsch .DE.: expected a code"),
        ({"task": None}, "data_source.task=null: expected a task"),
        ({"task": 2024}, "data_source.task=2024: expected a name, or null"),
        ({"columns": None}, "data_source.columns=None: expected a mapping"),
        ({"language_codes": None}, "data_source.language_codes=None: expected a mapping"),
        ({"max_refused": 7}, "data_source.max_refused=7: expected a share from 0 to 1"),
        ({"max_query_characters": "many"}, "data_source.max_query_characters=many: expected a whole number"),
        (
            {"columns": {"positive": "answer"}},
            "40 of 40 rows refused.*field positive: missing field .answer; there are",
        ),
    ],
)
def test_a_wrong_key_is_one_clear_line(
    overrides: dict[str, Any], message: str, tmp_path: Path, build: Callable[..., PairSource]
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(jsonl())
    with pytest.raises(UserError, match=message) as raised:
        build("folder", **{"path": str(tmp_path / "rows.jsonl"), "language": "de", **overrides})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl.gz", gzip.compress(jsonl())[:-40], r"rows.jsonl.gz, row \d+: cannot be read on"),
        ("rows.parquet", parquet()[:-50], "rows.parquet, after row 0: cannot be read as Parquet"),
        (
            "rows.parquet.gz",
            gzip.compress(parquet())[:-40],
            "rows.parquet.gz, after row 0: cannot be read as Parquet",
        ),
        ("rows.xml", b"<a/>", "no file name ends with one of .*name the format: data_source.format"),
        ("rows.csv", b"query,query\na,b\n", "rows.csv, row 1: expected a header that names each column once"),
        ("rows.jsonl", b"\n\n", "no rows; expected at least one"),
        ("rows.csv", b"query,positive\n", "no rows; expected at least one"),
    ],
)
def test_a_file_that_is_no_good_as_a_whole_is_one_clear_line(
    name: str, content: bytes, message: str, tmp_path: Path, build: Any
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        build("folder", path=str(tmp_path / name), language="de")
