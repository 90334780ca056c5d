from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from retrofit.data.records import PAIR_SCHEMA, Pair, content_id, read_pairs, to_table, write_pairs

PAIR = Pair(
    query="Philips Hue: Host",
    positives=("Die IP-Adresse Ihrer Bridge.", "Der Hostname Ihrer Bridge."),
    negatives=("Das Passwort.",),
    task="field_help",
    language="de",
    document_language="de",
    source="homeassistant",
    group="hue",
    split="test",
)


def test_the_identifier_of_a_passage_is_its_text_alone() -> None:
    assert content_id("מארח") == content_id("מארח")
    assert content_id("Host") != content_id("host")
    assert len(content_id("")) == 16


def test_the_identifier_of_a_query_tells_languages_apart() -> None:
    assert PAIR.query_id != replace(PAIR, language="en").query_id
    assert PAIR.query_id == replace(PAIR, task="title_body", document_language="en", group="other").query_id


def test_language_and_text_are_not_run_together() -> None:
    assert content_id("nHost", "e") != content_id("Host", "en")


def test_pairs_survive_parquet(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, to_table([PAIR, replace(PAIR, query="主机：地址", negatives=())]))
    table = read_pairs(path)
    assert table.schema.equals(PAIR_SCHEMA)
    first, second = table.to_pylist()
    assert first["positives"] == list(PAIR.positives)
    assert first["positive_ids"] == [content_id(text) for text in PAIR.positives]
    assert first["negative_ids"] == [content_id("Das Passwort.")]
    assert first["query_id"] == PAIR.query_id
    assert (second["query"], second["negatives"]) == ("主机：地址", [])
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.parquet"]


def test_no_pairs_are_a_table_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, to_table([]))
    assert read_pairs(path).num_rows == 0


def test_a_table_of_another_shape_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        write_pairs(tmp_path / "pairs.parquet", pa.table({"query": ["a"]}))
    assert not list(tmp_path.iterdir())
