"""Every kind of bad row, one by one, among good rows that are used all the same."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrofit.data.sources.refusals import EXPECTED, Reason
from retrofit.errors import UserError

GOOD = [{"query": f"query {number}", "positive": f"positive {number}", "negative": None} for number in range(9)]
COLUMNS = {"negative": "negative"}

# Reason → the line in JSON Lines that stands in row 5, the overrides it needs, and the field that is named.
LINES: dict[Reason, tuple[bytes, dict[str, Any], str]] = {
    Reason.INVALID_UTF8: (b'{"query": "caf\xe9", "positive": "p"}', {}, ""),
    Reason.BROKEN_JSON: (b'{"query": "q", "positive": ', {}, ""),
    Reason.NOT_AN_OBJECT: (b'["q", "p"]', {}, ""),
    Reason.MISSING_FIELD: (b'{"query": "q", "answer": "p"}', {}, "positive"),
    Reason.NULL_FIELD: (b'{"query": null, "positive": "p"}', {}, "query"),
    Reason.NOT_A_TEXT: (b'{"query": 7, "positive": "p"}', {}, "query"),
    Reason.UNEQUAL_LISTS: (
        b'{"query": "q", "title": ["a", "b"], "positive": ["p"]}',
        {"columns": {"positive": ["title", "positive"]}},
        "positive",
    ),
    Reason.NO_POSITIVES: (b'{"query": "q", "positive": []}', {}, "positive"),
    Reason.EMPTY: (b'{"query": "", "positive": "p"}', {}, "query"),
    Reason.BLANK: (b'{"query": "q", "positive": " \\n\\u3000"}', {}, "positive"),
    Reason.NUL: (b'{"query": "q\\u0000", "positive": "p"}', {}, "query"),
    Reason.CONTROL: (b'{"query": "q", "positive": "p\\u0007"}', {}, "positive"),
    Reason.SURROGATE: (b'{"query": "q\\ud83d", "positive": "p"}', {}, "query"),
    Reason.REPLACEMENT: ('{"query": "q", "positive": "p\ufffd"}'.encode(), {}, "positive"),
    Reason.LONG_QUERY: (b'{"query": "qqqqqqqqqqqqqqqqqqqqq", "positive": "p"}', {"max_query_characters": 20}, "query"),
    Reason.LONG_PASSAGE: (b'{"query": "q", "positive": "ppppppppppppp"}', {"max_passage_characters": 12}, "positive"),
    Reason.QUERY_IS_POSITIVE: (b'{"query": "p", "positive": ["x", "p"]}', {}, "positive"),
    Reason.NEGATIVE_IS_POSITIVE: (b'{"query": "q", "positive": "p", "negative": ["n", "p"]}', {}, "negative"),
    Reason.MALFORMED_LANGUAGE: (
        b'{"query": "q", "positive": "p", "lang": "German!"}',
        {"columns": {"language": "lang"}},
        "language",
    ),
    Reason.UNKNOWN_SPLIT: (
        b'{"query": "q", "positive": "p", "part": "heldout"}',
        {"columns": {"split": "part"}},
        "split",
    ),
    Reason.NOT_AN_IDENTIFIER: (
        b'{"query": "q", "positive": "p", "topic": [1]}',
        {"columns": {"group": "topic"}},
        "group",
    ),
    Reason.DUPLICATE_ROW: (b'{"query": "query 0", "positive": ["positive 0"]}', {}, ""),
}


def build_with(line: bytes, overrides: dict[str, Any], tmp_path: Path, build: Any, **more: Any) -> Any:
    rows = [json.dumps({**row, "lang": "de", "part": "train", "topic": "t", "title": None}).encode() for row in GOOD]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*rows[:4], line, *rows[4:]]))
    columns = {**COLUMNS, **overrides.get("columns", {})}
    return build(
        "folder", **{"path": str(tmp_path / "rows.jsonl"), "language": "en", **overrides, "columns": columns, **more}
    )


@pytest.mark.parametrize("reason", LINES)
def test_a_bad_row_is_refused_with_its_place_and_the_others_are_used(
    reason: Reason, tmp_path: Path, build: Any
) -> None:
    line, overrides, field = LINES[reason]
    source = build_with(line, overrides, tmp_path, build, max_refused=0.1)
    assert sorted(source.pairs["query"].to_pylist()) == [row["query"] for row in GOOD]
    assert source.report["refused"] == {str(reason): 1}
    assert source.report["rows"] == 10
    (refused,) = map(json.loads, (source.folder / "refused.jsonl").read_text().splitlines())
    assert refused["file"] == str(tmp_path / "rows.jsonl")
    assert (refused["row"], refused["field"], refused["reason"]) == (5, field, str(reason))
    assert refused["expected"] == EXPECTED[reason]
    assert not list((tmp_path / "cache" / "refused").iterdir())


@pytest.mark.parametrize("reason", [reason for reason in LINES if reason is not Reason.DUPLICATE_ROW])
def test_too_many_bad_rows_stop_the_source_with_one_line(reason: Reason, tmp_path: Path, build: Any) -> None:
    line, overrides, field = LINES[reason]
    with pytest.raises(UserError) as raised:
        build_with(line, overrides, tmp_path, build)
    message = str(raised.value)
    assert "1 of 10 rows refused, more than data_source.max_refused=0.01 allows" in message
    assert f"rows.jsonl, row 5{', field ' + field if field else ''}: {reason}" in message
    assert EXPECTED[reason] in message
    assert "\n" not in message
    kept = Path(message.rpartition("all of them: ")[2])
    assert json.loads(kept.read_text())["reason"] == str(reason)
    assert not list((tmp_path / "cache").glob("corpora/*/pairs.arrow"))


@pytest.mark.parametrize("role", ["group", "task"])
def test_a_label_that_cannot_be_encoded_is_refused(role: str, tmp_path: Path, build: Any) -> None:
    line = rb'{"query": "q", "positive": "p", "label": "half \ud83d"}'
    overrides = {"columns": {role: "label"}, "task": "t"}
    source = build_with(line, overrides, tmp_path, build, max_refused=0.1)
    (refused,) = map(json.loads, (source.folder / "refused.jsonl").read_text().splitlines())
    assert (refused["row"], refused["field"], refused["reason"]) == (5, role, str(Reason.SURROGATE))
    assert len(source.pairs) == 9


def complete(line: bytes) -> bytes:
    """A bad row with the fields that the column map of all bad rows together needs, where it is an object at all."""
    try:
        values = json.loads(line)
    except ValueError:
        return line
    extra = {"lang": "de", "part": "train", "topic": "t", "title": None}
    return json.dumps({**extra, **values}).encode() if isinstance(values, dict) else line


def test_a_folder_of_bad_rows_of_every_kind_gives_its_good_rows_and_as_many_messages(
    tmp_path: Path, build: Any
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    good = [complete(json.dumps(row).encode()) for row in GOOD]
    bad = [complete(line) for line, _, _ in LINES.values()]
    (folder / "a.jsonl").write_bytes(b"\n".join([*good[:5], *bad[::2]]))
    (folder / "b.jsonl").write_bytes(b"\n".join([*bad[1::2], *good[5:]]))
    overrides: dict[str, Any] = {"columns": dict(COLUMNS)}
    for _, needed, _ in LINES.values():
        overrides["columns"] |= needed.get("columns", {})
        overrides |= {key: value for key, value in needed.items() if key != "columns"}
    source = build("folder", path=str(folder), language="en", max_refused=0.9, **overrides)
    assert sorted(source.pairs["query"].to_pylist()) == [row["query"] for row in GOOD]
    assert source.report["refused"] == {str(reason): 1 for reason in sorted(LINES)}
    refused = [json.loads(line) for line in (source.folder / "refused.jsonl").read_text().splitlines()]
    assert len({row["expected"] for row in refused}) == len(refused) == len(LINES) >= 20
    assert {Path(row["file"]).name for row in refused} == {"a.jsonl", "b.jsonl"}


def test_every_reason_says_something_of_its_own() -> None:
    assert set(EXPECTED) == set(Reason)
    assert len(set(EXPECTED.values())) == len(Reason) >= 20


def test_duplicates_do_no_harm_however_many(tmp_path: Path, build: Any) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(GOOD[0]) for _ in range(20)))
    source = build("folder", path=str(tmp_path / "rows.jsonl"), language="en")
    assert source.report["refused"] == {"duplicate row": 19}
    assert len(source.pairs) == 1


@pytest.mark.parametrize(
    ("lines", "reason", "row"),
    [
        (["a,b,c"], "wrong number of columns", 3),
        (["a"], "wrong number of columns", 3),
        (['"a"b,c'], "broken quoting", 3),
        ([b"a,caf\xe9".decode("latin-1")], "invalid UTF-8", 3),
    ],
)
def test_a_bad_row_of_csv(lines: list[str], reason: str, row: int, tmp_path: Path, build: Any) -> None:
    good = [f'query {number},"positive\n{number}"' for number in range(4)]
    content = "\n".join(["query,positive", "before,yes", *lines, *good])
    (tmp_path / "rows.csv").write_bytes(content.encode("latin-1"))
    source = build("folder", path=str(tmp_path / "rows.csv"), language="en", max_refused=0.3)
    assert source.report["refused"] == {reason: 1}
    assert json.loads((source.folder / "refused.jsonl").read_text())["row"] == row
    assert sorted(source.pairs["query"].to_pylist()) == ["before", *(f"query {number}" for number in range(4))]


def test_a_quote_that_is_never_closed_costs_its_lines_only_and_each_of_them_counts(tmp_path: Path, build: Any) -> None:
    (tmp_path / "rows.csv").write_text('query,positive\na,b\n"c,d\n' + "".join(f"e{n},f{n}\n" for n in range(3)))
    with pytest.raises(UserError, match="4 of 5 rows refused"):
        build("folder", path=str(tmp_path / "rows.csv"), language="en", max_refused=0.5)
    source = build("folder", path=str(tmp_path / "rows.csv"), language="en", max_refused=0.8)
    assert source.report["refused"] == {"broken quoting": 4}
    assert source.report["rows"] == 5
    refused = [json.loads(line) for line in (source.folder / "refused.jsonl").read_text().splitlines()]
    assert [row["row"] for row in refused] == [3, 4, 5, 6]
    assert source.pairs["query"].to_pylist() == ["a"]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_a_long_cell_that_nothing_is_read_from_does_no_harm(name: str, mark: str, tmp_path: Path, build: Any) -> None:
    cells = [("query", "positive", "html"), *((f"q{n}", f"a{n}", "x" * 140_000 * n) for n in range(3))]
    (tmp_path / name).write_text("".join(mark.join(row) + "\n" for row in cells))
    source = build("folder", path=str(tmp_path / name), language="en")
    assert source.pairs["query"].to_pylist() == ["q0", "q1", "q2"]
    with (tmp_path / name).open("a") as rows:
        rows.write(mark.join(("q3", "a3", "x" * 1_100_000)) + "\n")
    source = build("folder", path=str(tmp_path / name), language="en", max_refused=0.3)
    assert source.report["refused"] == {"over-long cell": 1}


def test_a_quote_that_is_never_closed_costs_some_thousand_rows_at_most(tmp_path: Path, build: Any) -> None:
    rows = [f"query {n},{'x' * 80} {n}" for n in range(8_000)]
    rows[100] = '"' + rows[100]
    (tmp_path / "rows.csv").write_text("\n".join(["query,positive", *rows]))
    source = build("folder", path=str(tmp_path / "rows.csv"), language="en", max_refused=0.5)
    (reason,) = source.report["refused"]
    assert reason == "broken quoting"
    lost = 2**18 // len(rows[1_000])
    assert source.report["refused"][reason] == pytest.approx(lost, rel=0.02)
    assert source.pairs.num_rows == len(rows) - source.report["refused"][reason]


def test_a_bad_row_of_parquet(tmp_path: Path, build: Any) -> None:
    queries = pa.array([b"fine", b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"query": queries, "positive": ["a", "b", "c"]}), tmp_path / "rows.parquet")
    source = build("folder", path=str(tmp_path / "rows.parquet"), language="en", max_refused=0.5)
    assert source.report["refused"] == {"invalid UTF-8": 1}
    assert json.loads((source.folder / "refused.jsonl").read_text())["row"] == 2
    assert source.pairs["query"].to_pylist() == ["fine", "good"]


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path: Path, build: Any) -> None:
    (tmp_path / "rows.jsonl").write_text("[]\n" * 5)
    with pytest.raises(UserError, match=r"folder: none of 5 rows gives a pair .5 not an object."):
        build("folder", path=str(tmp_path / "rows.jsonl"), language="en", max_refused=1)


def test_a_column_of_texts_is_no_label(build: Any, write_lines: Any) -> None:
    rows = [{"query": f"q {n}", "positive": f"p {n}", "id": f"task {n}"} for n in range(10_001)]
    with pytest.raises(
        UserError, match=r"row 10001: more than 10000 different values of task.*data_source.columns.task"
    ):
        build("folder", path=str(write_lines("rows.jsonl", rows)), language="en", columns={"task": "id"})
