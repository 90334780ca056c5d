"""The held-out interface texts by key."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrofit.artefacts import default_cache
from retrofit.data.embedded import integrations
from retrofit.data.embedded.corpus import build_embedded_corpus
from retrofit.data.embedded.integrations import read_integrations
from retrofit.data.embedded.parallel import build_parallel_interface
from retrofit.data.records import PAIR_SCHEMA
from retrofit.data.storage import PAIRS, read_records

LABELS = set(integrations.TASKS) - {"bitext"}


def test_the_group_of_a_text_is_its_key(tmp_path: Path) -> None:
    files = {
        "hue/translations/en.json": {"issues": {"old": {"title": "Old", "description": "Update your bridge now."}}},
        "hue/translations/de.json": {"issues": {"old": {"title": "Alt", "description": "Bridge jetzt aktualisieren."}}},
    }
    with zipfile.ZipFile(tmp_path / "wheel", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"homeassistant/components/{name}", json.dumps(content))
    reading = read_integrations(tmp_path / "wheel", bitext_per_language=0, group_by_key=True)
    assert {(pair.language, pair.query, pair.group) for pair in reading.pairs()} == {
        ("de", "hue: Alt", "hue.issues.old.description"),
        ("en", "hue: Old", "hue.issues.old.description"),
    }


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    table = read_records(build_parallel_interface(default_cache()) / PAIRS)
    assert table.schema.equals(PAIR_SCHEMA)
    return table.to_pylist()


@pytest.fixture(scope="module")
def embedded() -> list[dict[str, Any]]:
    return read_records(build_embedded_corpus(default_cache()) / PAIRS).to_pylist()


def texts(rows: list[dict[str, Any]], split: str) -> Iterator[tuple[str, str]]:
    for row in rows:
        if row["split"] == split and row["task"] in LABELS:
            yield from ((row["language"], text) for text in (row["query"], *row["positives"]))


@pytest.mark.embedded
@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_texts_are_those_of_the_embedded_corpus(
    rows: list[dict[str, Any]], embedded: list[dict[str, Any]], split: str
) -> None:
    assert set(texts(rows, split)) == set(texts(embedded, split))


@pytest.mark.embedded
def test_no_text_is_trained_on_and_no_integration_is_in_two_splits(
    rows: list[dict[str, Any]], embedded: list[dict[str, Any]]
) -> None:
    trained = {text for _, text in texts(embedded, "train")}
    assert not trained & {text for split in ("validation", "test") for _, text in texts(rows, split)}
    splits = {row["group"]: row["split"] for row in embedded if row["task"] in LABELS}
    assert all(splits[row["group"].partition(".")[0]] == row["split"] for row in rows)


@pytest.mark.embedded
def test_keys_are_parallel(rows: list[dict[str, Any]]) -> None:
    languages: dict[str, set[str]] = {}
    for row in rows:
        languages.setdefault(row["group"], set()).add(row["language"])
    assert {"en", "de"} <= set().union(*languages.values())
    assert sum(len(of_key) > 1 for of_key in languages.values()) > 0.95 * len(languages)
