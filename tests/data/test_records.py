from dataclasses import replace

from retrofit.data.records import Pair, content_id, shown_id, to_table

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


def test_the_identifier_of_a_query_tells_languages_apart() -> None:
    assert PAIR.query_id != replace(PAIR, language="en").query_id
    assert PAIR.query_id == replace(PAIR, task="title_body", document_language="en", group="other").query_id


def test_language_and_text_are_not_run_together() -> None:
    assert content_id("nHost", "e") != content_id("Host", "en")


def test_an_identifier_is_shown_as_16_hex_digits() -> None:
    assert shown_id(content_id("a")) == f"{content_id('a'):016x}"
    assert shown_id(5) == "0000000000000005"
    assert 0 <= content_id("מארח") < 2**64


def test_a_pair_survives_the_row() -> None:
    (row,) = to_table([PAIR]).to_pylist()
    assert Pair.of_row(row) == PAIR
    assert row["positive_ids"] == [content_id(text) for text in PAIR.positives]
    assert row["negative_ids"] == [content_id("Das Passwort.")]
    assert row["query_id"] == PAIR.query_id
