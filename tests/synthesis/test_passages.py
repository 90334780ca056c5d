"""Passages: read from rows, BEIR folders and data sources, and never what a held-out split is measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrofit.artefacts import default_cache
from retrofit.data.embedded import leads
from retrofit.data.embedded.corpus import SALT
from retrofit.data.splits import split_of
from retrofit.errors import UserError
from retrofit.synthesis.passages import Passages, folder_passages, lead_passages, read_all, source_texts

COLUMNS: dict[str, str | None] = {"text": "text", "title": "title", "language": "lang", "group": "group"}


def write_jsonl(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def passages(
    path: Path, language: str | None = None, columns: dict[str, str | None] = COLUMNS, max_refused: float = 0.0
) -> Passages:
    return folder_passages(
        name="mine", path=str(path), format="auto", columns=columns, language=language, max_refused=max_refused
    )


def read(path: Path, language: str | None = None, columns: dict[str, str | None] = COLUMNS) -> list[Any]:
    return list(passages(path, language, columns).read())


def test_rows_are_passages_each_text_once_in_a_language(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "notes.jsonl",
        {"text": "eins zwei", "title": "Eins  (Zahl)", "lang": "de", "group": 7},
        {"text": "eins zwei", "lang": "de"},
        {"text": "eins zwei", "lang": "en"},
        {"text": "three"},
    )
    found = read(tmp_path / "notes.jsonl", "en")
    assert [(item.text, item.title, item.language) for item in found] == [
        ("eins zwei", "Eins (Zahl)", "de"), ("eins zwei", "", "en"), ("three", "", "en"),
    ]  # fmt: skip
    assert found[0].group == "7"
    assert found[1].group == f"{found[1].passage_id:016x}"
    assert {item.source for item in found} == {"mine"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"title": "t"}, r"row 2, field text: missing field.* field that data_source.passages.\*.columns names"),
        ({"text": "x" * 100_001}, r"over-long passage .100001., expected at most 100,000 characters"),
        ({"text": " "}, "row 2, field text: only white space"),
        ({"text": "a\0b"}, "row 2, field text: NUL"),
        (
            {"text": "good", "lang": "?"},
            r"row 2, field language: malformed language .* data_source.passages.\*.language",
        ),
        ({"text": "good", "title": 3}, "row 2, field title: not a text"),
    ],
)
def test_a_bad_row_is_one_clear_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    write_jsonl(tmp_path / "notes.jsonl", {"text": "first"}, row)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "notes.jsonl", "en")


def test_a_missing_path_and_a_missing_language_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_source.passages.\*.path=.*: no such file"):
        read(tmp_path / "nothing")
    write_jsonl(tmp_path / "notes.jsonl", {"text": "first"})
    with pytest.raises(UserError, match=r"row 1, field language: malformed language"):
        read(tmp_path / "notes.jsonl")


def test_documents_that_answer_a_held_out_query_are_left_out(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "set" / "corpus.jsonl",
        *({"_id": f"d{number}", "text": f"text {number}", "title": "", "lang": "en"} for number in range(5)),
    )
    write_jsonl(tmp_path / "set" / "queries.jsonl", {"_id": "q", "text": "which?", "lang": "en"})
    qrels = tmp_path / "set" / "qrels"
    qrels.mkdir()
    for split, rows in {"test": "q\td1\t1\nq\td2\t0\n", "dev": "q\td3\t1\n", "train": "q\td4\t1\n"}.items():
        (qrels / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows, encoding="utf-8")
    assert [item.text for item in read(tmp_path / "set")] == ["text 0", "text 2", "text 4"]
    write_jsonl(tmp_path / "copies" / "corpus.jsonl", {"_id": "d9", "text": "text 1 ", "lang": "en"})
    copies = (tmp_path / "copies" / "corpus.jsonl").read_text(encoding="utf-8")
    with (tmp_path / "set" / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(copies)  # the text of a held-out document under another name
    assert [item.text for item in read(tmp_path / "set")] == ["text 0", "text 2", "text 4"]
    with pytest.raises(UserError, match=r"corpus.jsonl: expected its folder, whose qrels say which documents"):
        read(tmp_path / "set" / "corpus.jsonl")
    (qrels / "hard.tsv").write_text("q\td0\t1\n", encoding="utf-8")
    with pytest.raises(UserError, match="no split is called hard"):
        read(tmp_path / "set")
    assert len(read(tmp_path / "copies")) == 1  # a corpus and nothing else


def test_a_document_is_its_title_and_its_text(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "corpus.jsonl", {"_id": "d", "title": "Mill", "text": "It stands by the river.", "lang": "en"}
    )
    (found,) = read(tmp_path)
    assert (found.title, found.text) == ("Mill", "Mill It stands by the river.")


def test_a_few_bad_rows_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_jsonl(tmp_path / "notes.jsonl", *({"text": f"note {number}"} for number in range(9)), {"text": ""})
    assert len(list(passages(tmp_path, "en", max_refused=0.1).read())) == 9
    assert "1 of 10 rows passed over, such as" in caplog.text
    with pytest.raises(UserError, match=r"row 10, .*; 1 of 10 rows, more than data_source.*max_refused=0.05"):
        list(passages(tmp_path, "en", max_refused=0.05).read())


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": None}, r"data_source.passages.\*.columns.text=null: expected the field"),
        ({"text": "text", "titel": "t"}, r"data_source.passages.\*.columns.titel: no such field; expected group, lang"),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, columns: dict[str, str | None], said: str) -> None:
    write_jsonl(tmp_path / "notes.jsonl", {"text": "first"})
    with pytest.raises(UserError, match=said):
        passages(tmp_path, "en", columns)
    assert len(read(tmp_path, "en", {"text": "text"})) == 1


def test_a_change_of_the_files_changes_the_identity(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "notes.jsonl", {"text": "first"})
    made = [passages(tmp_path, "en").identity]
    write_jsonl(tmp_path / "notes.jsonl", {"text": "second"})
    made.append(passages(tmp_path, "en").identity)
    assert made[0] != made[1]


def test_passages_and_queries_of_a_source_are_those_that_train(corpus: Path) -> None:
    passages = list(
        source_texts(source={"pairs": corpus}, tasks=["field_help"], languages=["de"], queries=False).read()
    )
    queries = list(source_texts(source={"pairs": corpus}, tasks=["field_help"], languages=["de"], queries=True).read())
    assert passages
    assert queries
    assert {item.language for item in passages} == {"de"}
    assert all(item.is_query for item in queries)
    for name in ("tasks", "languages"):
        asked: dict[str, Any] = {"tasks": None, "languages": None, name: ["xx"]}
        with pytest.raises(UserError, match=rf"^data_source.passages.\*.{name}: xx not in the data source"):
            list(source_texts(source={"pairs": corpus}, **asked, queries=False).read())
    assert not any(item.is_query for item in passages)
    assert all(" train " in item.text for item in queries)
    with pytest.raises(UserError, match=r"data_source.passages.\*.tasks"):
        list(source_texts(source={"pairs": corpus}, tasks=["no_such"], languages=None, queries=False).read())


def test_parts_are_read_as_one_and_nothing_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", {"text": "first"}, {"text": "second"})
    part = passages(tmp_path, "en")
    assert len(read_all({"a": part, "b": part})) == 2
    with pytest.raises(UserError, match=r"data_source\.passages: no text in no part"):
        read_all({})


@pytest.mark.embedded
@pytest.mark.network
def test_leads_are_of_articles_that_train() -> None:
    found = list(lead_passages(languages=["es"], cache=default_cache()).read())
    assert len(found) > 4_000
    assert {item.language for item in found} == {"es"}
    assert all(split_of(item.group, salt=SALT) == "train" for item in found)
    assert all(len(item.text) >= leads.MIN_PASSAGE_CHARACTERS for item in found)
